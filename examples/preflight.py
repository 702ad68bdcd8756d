"""Five seconds before training: a softmax too many, a label too high, samples that mix, and a net without a fault.

Run it: `python examples/preflight.py`, or with the name of one of them: `python examples/preflight.py mixing`.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainwatch

FAULTS = {
    "softmax": "TW703",  # before a loss that applies one itself
    "label": "TW708",  # digits from 1 to 10, and ten outputs
    "mixing": "TW707",  # attention over the batch in place of the rows
}


class Rows(nn.Module):
    """Attention over the eight rows of an image."""

    def __init__(self, batch_first):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        x = x.unflatten(1, (8, 8))
        return self.head(x + self.attention(x, x, x, need_weights=False)[0])


def main(name="softmax", seconds=5):
    torch.manual_seed(0)
    images, digits = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 8 - 1, torch.tensor(digits) + (name == "label")
    model = Rows(batch_first=name != "mixing")
    if name == "softmax":
        model = nn.Sequential(model, nn.Softmax(dim=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train_loader = DataLoader(TensorDataset(x[:1200], y[:1200]), batch_size=32, shuffle=True)
    val_loader = DataLoader(TensorDataset(x[1200:], y[1200:]), batch_size=32)

    return trainwatch.preflight(
        model, nn.CrossEntropyLoss(), train_loader, optimizer, validation=val_loader, seconds=seconds
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])
