"""A deep net whose weights start twice as large as its activation allows: each layer doubles what passes through it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from trainwatch.demo.data import load_digits
from trainwatch.demo.training import Setup

DEPTH = 12
WIDTH = 64
TOO_LARGE = 2.0


def setup(seed: int) -> Setup:
    """A run whose gradients explode."""
    torch.manual_seed(seed)
    data = load_digits(seed)
    model = nn.Sequential()
    for n_in, n_out in pairwise([data.pixels, *[WIDTH] * (DEPTH - 1)]):
        layer = nn.Linear(n_in, n_out)
        nn.init.normal_(layer.weight, std=TOO_LARGE * (2 / n_in) ** 0.5)
        model.extend([layer, nn.ReLU()])
    model.append(nn.Linear(WIDTH, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    planted = f"{DEPTH} linear layers with ReLU, their weights {TOO_LARGE:g} times as large as that takes at the start"
    return Setup(planted, data, model, optimizer, epochs=4)
