"""Small real trainings through `watch`, wired as told."""

import torch
from torch import nn

import trainwatch

SETTINGS = {"quiet": True, "strict": True}


def net(activation=nn.ReLU, batch_norm=True, dropout=0.1):
    norm = nn.BatchNorm1d(32) if batch_norm else nn.Identity()
    return nn.Sequential(
        nn.Linear(20, 32), norm, activation(), nn.Linear(32, 32), nn.Dropout(dropout), activation(), nn.Linear(32, 2)
    )


def data(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(128, 20)
    return x, (x[:, 0] + x[:, 1] > 0).long()


def train(model, optimizer, *, steps=24, zero="before", mode="train", parts=1, seed=0):
    """Train and give back (report, record).

    Args:
        zero: ``before``, ``after``, ``values`` (through `.data`), ``never`` or ``between`` backward and step.
        mode: ``train``, ``eval``, or the step from which on the model is in evaluation mode.
        parts: Batches in a step.
    """
    torch.set_num_threads(1)
    x, y = data(seed)
    criterion = nn.CrossEntropyLoss()
    with trainwatch.watch(model, optimizer, loss_fn=criterion, settings=SETTINGS) as watch:
        for step in range(steps):
            model.train(mode == "train" or (isinstance(mode, int) and step < mode))
            if zero == "before":
                optimizer.zero_grad()
            elif zero == "values":
                for p in model.parameters():
                    if p.grad is not None:
                        p.grad.data.zero_()
            for _ in range(parts):
                (criterion(model(x), y) / parts).backward()
            if zero == "between":
                optimizer.zero_grad()
            optimizer.step()
            if zero == "after":
                optimizer.zero_grad(set_to_none=False)
    return watch.report, watch.record


def codes(report):
    return [d.code for d in report.diagnoses for d in d.walk() if d.code.startswith("TW70") and d.code != "TW709"]
