"""Rare classes: is this digit an 8? Only 12 of 1,090 training images are.

`with` reports even when the loop is left by an exception or Ctrl-C. Accuracy looks fine from the first epoch on.

Run it: `python examples/digits_imbalance.py`.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import trainwatch


def main():
    torch.manual_seed(0)
    images, classes = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32) / 8 - 1
    y = torch.tensor(classes == 8).long()
    order = torch.randperm(len(x))
    train, val = order[:1200], order[1200:]
    eights = train[y[train] == 1]
    train = torch.cat([train[y[train] == 0], eights[:12]])

    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()

    with trainwatch.watch(model, optimizer, loss_fn=criterion, class_names=["not 8", "8"]) as watch:
        for _ in range(12):
            model.train()
            for rows in train[torch.randperm(len(train))].split(32):
                optimizer.zero_grad()
                criterion(model(x[rows]), y[rows]).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                logits = model(x[val])
                criterion(logits, y[val])
            watch.epoch_end(accuracy=float((logits.argmax(1) == y[val]).float().mean()))
    return watch.report


if __name__ == "__main__":
    main()
