"""Six faults that curves alone do not tell apart: each is found by an experiment on the live model, and reported.

Run it: `python examples/experiments.py`, or with the name of one of them: `python examples/experiments.py clipped`.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import trainwatch


class Log(nn.Module):
    """Passes on the logarithm of each unit's share."""

    def forward(self, x):
        return torch.log(x.relu() / x.relu().sum(1, keepdim=True))  # of a share that is 0 some day


class Reader(nn.Module):
    """Reads the eight rows of a digit; its input gate begins shut."""

    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(8, 32, batch_first=True)
        nn.init.constant_(self.cells.bias_ih_l0[:32], -20.0)

    def forward(self, x):
        return self.cells(x.view(-1, 8, 8))[0][:, -1]


def main(name="shut"):
    torch.manual_seed(0)
    images, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 8 - 1, torch.tensor(classes)
    train, val = torch.randperm(len(x)).split([1200, len(x) - 1200])
    hidden = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    models = {"nan": [*hidden, Log()], "dead": [*hidden], "shut": [Reader()], "dropout": [nn.Dropout(0.85), *hidden]}
    model = nn.Sequential(*models.get(name, hidden), nn.Linear(32 if name == "shut" else 64, 10))
    if name == "dead":
        nn.init.constant_(model[2].bias, -30.0)
    rates = [1e-5 if name == "slow" and layer is not model[-1] else 0.05 for layer in model]
    groups = [{"params": layer.parameters(), "lr": rate} for layer, rate in zip(model, rates, strict=True)]
    optimizer, criterion = torch.optim.SGD(groups, momentum=0.9), nn.CrossEntropyLoss()

    with trainwatch.watch(model, optimizer, loss_fn=criterion) as watch:
        for _ in range(12):
            for rows in train[torch.randperm(len(train))].split(32):
                optimizer.zero_grad()
                criterion(model.train()(x[rows]), y[rows]).backward()
                if name == "clipped":
                    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
                optimizer.step()
            with torch.no_grad():
                criterion(model.eval()(x[val]), y[val])
    return watch.report


if __name__ == "__main__":
    for fault in sys.argv[1:] or ["nan", "dead", "shut", "slow", "clipped", "dropout"]:
        main(fault)
