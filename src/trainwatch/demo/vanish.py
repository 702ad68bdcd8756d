"""Ten layers of sigmoids: the error signal is gone before it reaches the first ones."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from trainwatch.demo.data import load_digits
from trainwatch.demo.training import Setup

DEPTH = 10
WIDTH = 64


def setup(seed: int) -> Setup:
    """A run whose gradients vanish."""
    torch.manual_seed(seed)
    data = load_digits(seed)
    widths = [data.pixels, *[WIDTH] * (DEPTH - 1)]
    hidden = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.Sigmoid())]
    model = nn.Sequential(*hidden, nn.Linear(WIDTH, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Setup(f"{DEPTH} linear layers with sigmoids in between", data, model, optimizer, epochs=12)
