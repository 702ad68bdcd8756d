"""Vanishing gradients: ten layers of sigmoids do not learn, and the report says which layer gets no signal.

Run it: `python examples/deep_sigmoid_vanishing.py`.
"""

from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch import nn

import trainwatch


def main():
    torch.manual_seed(0)
    images, classes = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32) / 8 - 1
    y = torch.tensor(classes)
    train, val = torch.randperm(len(x)).split([1200, len(x) - 1200])

    hidden = [layer for sizes in pairwise([64] * 10) for layer in (nn.Linear(*sizes), nn.Sigmoid())]
    model = nn.Sequential(*hidden, nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    criterion = nn.CrossEntropyLoss()

    watch = trainwatch.watch(model, optimizer, loss_fn=criterion)
    for _ in range(12):
        model.train()
        for rows in train[torch.randperm(len(train))].split(32):
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            criterion(model(x[val]), y[val])
    report = watch.finish()  # prints the report
    for diagnosis in report.findings():
        print(diagnosis.code, diagnosis.where)
    return report


if __name__ == "__main__":
    main()
