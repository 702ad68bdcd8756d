"""A net that fits its task, a little dropout and weight decay: nothing to find."""

from __future__ import annotations

import torch
from torch import nn

from trainwatch.demo.data import load_digits
from trainwatch.demo.training import Setup


def setup(seed: int) -> Setup:
    """A healthy run."""
    torch.manual_seed(seed)
    data = load_digits(seed)
    model = nn.Sequential(nn.Linear(data.pixels, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    return Setup("nothing: a healthy run", data, model, optimizer, epochs=20)
