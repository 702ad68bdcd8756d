"""What freezing costs: nets are tuned as a whole, then from the same start with what the report says is to be frozen.

Run it: `python benchmarks/freezing.py`.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import trainwatch

SEEDS = range(5)
CRITERION = nn.CrossEntropyLoss()
# The two experiments that it takes, once, at the end, however crowded the machine is.
SETTINGS = trainwatch.Settings(quiet=True, probes={"frozen_part": 10**9, "tuning": 10**9})


def dense() -> nn.Sequential:
    layers = [layer for _ in range(3) for layer in (nn.Linear(64, 64), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 10))


def train(model, optimizer, x, y, epochs, frozen=(), after=lambda: None):
    for _ in range(epochs):
        model.train()
        for name in frozen:
            model.get_submodule(name).eval()
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            CRITERION(model(x[rows]), y[rows]).backward()
            optimizer.step()
        after()


def tune(model, optimizer, parts, seed, frozen=()):
    """Fine-tune for 50 epochs under a watch: its report, and which validation samples are right at the end."""
    x, y, xv, yv = parts

    def validate():
        with torch.no_grad():
            outputs = model.eval()(xv)
            CRITERION(outputs, yv)
        return outputs.argmax(1) == yv

    torch.manual_seed(seed)
    with trainwatch.watch(model, optimizer, loss_fn=CRITERION, settings=SETTINGS) as watch:
        train(model, optimizer, x, y, 50, frozen, validate)
    return watch.report, validate().double().numpy()


def compare(seed, samples, wrong):
    """A net that knows ten digits learns odd from even: which samples are right with all trained, and with a part."""
    torch.manual_seed(seed)
    images, digits = load_digits(return_X_y=True)
    x, digits = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1, torch.tensor(digits)
    known, few, val = torch.randperm(len(x)).split([900, samples, len(x) - 900 - samples])
    pretrained = dense()
    train(pretrained, torch.optim.Adam(pretrained.parameters(), lr=2e-3), x[known], digits[known], 15)
    pretrained[-1] = nn.Linear(pretrained[-1].in_features, 2)
    odd = digits % 2
    flipped = few[: round(wrong * samples)]
    odd[flipped] = 1 - odd[flipped]
    parts = x[few], odd[few], x[val], odd[val]
    model = copy.deepcopy(pretrained)
    report, whole = tune(model, torch.optim.Adam(model.parameters(), lr=3e-3), parts, seed)
    found = next((d for d in report.diagnoses if d.code == "TW801"), None)
    if found is None:
        return whole, None, ()
    code = {"model": pretrained, "torch": torch}
    exec(next(r.how for r in found.remedies if r.id == "freeze-layers"), code)  # as it would be pasted
    return whole, tune(pretrained, code["optimizer"], parts, seed, code["frozen"])[1], code["frozen"]


def main():
    for wrong in (0.1, 0.0):
        gains = []
        for seed in SEEDS:
            whole, part, frozen = compare(seed, 60, wrong)
            if part is None:
                print(f"{wrong:.0%} wrong, seed {seed}: {whole.mean():.1%}, nothing is to be frozen")
                continue
            gain = part - whole
            gains.append(gain.mean())
            print(f"{wrong:.0%} wrong, seed {seed}: {whole.mean():.1%} whole, {part.mean():.1%} with "
                  f"{', '.join(frozen)} frozen, {gain.mean():+.1%} +- {gain.std() / len(gain)**0.5:.1%}")  # fmt: skip
        if len(gains) > 1:
            print(f"  together {np.mean(gains):+.1%} +- {np.std(gains, ddof=1) / len(gains) ** 0.5:.1%}")


if __name__ == "__main__":
    main()
