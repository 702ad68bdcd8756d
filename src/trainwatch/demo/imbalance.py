"""Ten classes, three of which have five training samples each."""

from __future__ import annotations

import torch
from torch import nn

from trainwatch.demo.data import load_digits
from trainwatch.demo.training import Setup

RARE = (3, 8, 9)
KEPT = 5


def setup(seed: int) -> Setup:
    """A run that hardly sees three of its classes."""
    torch.manual_seed(seed)
    data = load_digits(seed)
    keep = torch.ones(len(data.y_train), dtype=torch.bool)
    for digit in RARE:
        keep[(data.y_train == digit).nonzero().flatten()[KEPT:]] = False
    data = data.take(keep)
    model = nn.Sequential(nn.Linear(data.pixels, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    names = ", ".join(map(str, RARE))
    return Setup(f"only {KEPT} training images of each of the digits {names}", data, model, optimizer, epochs=12)
