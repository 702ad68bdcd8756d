"""Faults of everyday, one for each name: each is found from what the loop does, without a line in it.

Run it: `python examples/plain_faults.py`, or with the name of one of them: `python examples/plain_faults.py threshold`.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import trainwatch

FAULTS = {
    "awake": "TW701",  # dropout drops units in validation, too
    "asleep": "TW702",  # and does not in training
    "threshold": "TW104",  # the rare class weighs too much: its scores are shifted
    "raw": "TW107",  # pixels as they come
    "narrow": "TW204",  # two units for ten classes
    "hovering": "TW501",  # an L1 term and plain steps: no weight ever gets to zero
    "few": "TW207",  # four samples of each class
}


def main(name="asleep", settings=None):
    torch.manual_seed(0)
    images, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32), torch.tensor(classes)
    x = x * 16 if name == "raw" else x / 8 - 1
    train, val = torch.randperm(len(x)).split([1200, len(x) - 1200])
    if name == "few":
        train = torch.cat([train[y[train] == digit][:4] for digit in range(10)])
    width, outputs, criterion = 2 if name == "narrow" else 64, 10, nn.CrossEntropyLoss()
    if name == "threshold":  # is it an 8?
        outputs, y, criterion = 1, (y == 8).float()[:, None], nn.BCEWithLogitsLoss(pos_weight=torch.tensor(30.0))
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, outputs))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    with trainwatch.watch(model, optimizer, loss_fn=criterion, settings=settings) as watch:
        for _ in range(100 if name == "few" else 20):
            model.train(name != "asleep")
            for rows in train[torch.randperm(len(train))].split(32):
                optimizer.zero_grad()
                loss = criterion(model(x[rows]), y[rows])
                if name == "hovering":
                    loss = loss + 1e-3 * sum(p.abs().sum() for p in model.parameters())
                loss.backward()
                optimizer.step()
            model.train(name == "awake")
            with torch.no_grad():
                criterion(model(x[val]), y[val])
    return watch.report


if __name__ == "__main__":
    for fault in sys.argv[1:] or FAULTS:
        main(fault)
