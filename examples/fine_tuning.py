"""A net that knows ten digits learns from sixty labels which are odd, wrong ones by heart; then with a part frozen.

Run it: `python examples/fine_tuning.py`.
"""

import copy

import torch
from sklearn.datasets import load_digits
from torch import nn

import trainwatch

CRITERION = nn.CrossEntropyLoss()


def train(model, optimizer, x, y, epochs, validate=lambda: None):
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            CRITERION(model(x[rows]), y[rows]).backward()
            optimizer.step()
        validate()


def tune(model, x, y, xv, yv):
    """Fine-tune what requires gradients; give back the report and the validation accuracy."""

    def validate():
        model.eval()
        with torch.no_grad():
            outputs = model(xv)
            CRITERION(outputs, yv)
        return float((outputs.argmax(1) == yv).float().mean())

    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    with trainwatch.watch(model, optimizer, loss_fn=CRITERION) as watch:
        train(model, optimizer, x, y, 50, validate)
    return watch.report, validate()


def main():
    torch.manual_seed(0)
    images, digits = load_digits(return_X_y=True)
    x, digits = torch.tensor(images, dtype=torch.float32) / 8 - 1, torch.tensor(digits)
    known, few, val = torch.randperm(len(x)).split([900, 60, len(x) - 960])
    layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    pretrained = nn.Sequential(*layers, nn.Linear(64, 10))
    train(pretrained, torch.optim.Adam(pretrained.parameters(), lr=2e-3), x[known], digits[known], 15)
    pretrained[-1] = nn.Linear(64, 2)
    odd = digits % 2
    odd[few[:6]] = 1 - odd[few[:6]]  # one label in ten is wrong
    report, whole = tune(copy.deepcopy(pretrained), x[few], odd[few], x[val], odd[val])
    frozen = next(d.where for d in report.diagnoses if d.code == "TW801")
    for name in frozen:
        pretrained.get_submodule(name).requires_grad_(False)
    _, part = tune(pretrained, x[few], odd[few], x[val], odd[val])
    print(f"right: {whole:.1%} where all is trained, {part:.1%} with {', '.join(frozen)} frozen")
    return report


if __name__ == "__main__":
    main()
