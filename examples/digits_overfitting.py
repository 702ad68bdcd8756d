"""Plain PyTorch: one line before the loop, one after, nothing inside.

A wide net learns 200 handwritten digits by heart, two fifths of which have a wrong label. The report names the labels
as the cause, and overfitting as what follows from them.

Run it: `python examples/digits_overfitting.py [LOG_DIR]`.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainwatch


def main(log_dir=None):
    torch.manual_seed(0)
    images, classes = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32) / 8 - 1
    y = torch.tensor(classes)
    order = torch.randperm(len(x))
    train, val = order[:200], order[200:1000]
    wrong = train[:80]
    y[wrong] = (y[wrong] + torch.randint(1, 10, (len(wrong),))) % 10
    train_loader = DataLoader(TensorDataset(x[train], y[train]), batch_size=50, shuffle=True)
    val_loader = DataLoader(TensorDataset(x[val], y[val]), batch_size=256)

    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    criterion = nn.CrossEntropyLoss()

    watch = trainwatch.watch(model, optimizer, loss_fn=criterion, log_dir=log_dir)
    for _ in range(100):
        model.train()
        for inputs, targets in train_loader:
            optimizer.zero_grad()
            criterion(model(inputs), targets).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for inputs, targets in val_loader:
                criterion(model(inputs), targets)
    return watch.finish()  # prints the report


if __name__ == "__main__":
    main(*sys.argv[1:2])
