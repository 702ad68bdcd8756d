"""A large network, few samples, some of them mislabelled, and nothing to stop it from learning them by heart."""

from __future__ import annotations

import torch
from torch import nn

from trainwatch.demo.data import load_digits
from trainwatch.demo.training import Setup

SAMPLES = 200
WRONG = 0.4
WIDTH = 256


def setup(seed: int) -> Setup:
    """A run that overfits."""
    torch.manual_seed(seed)
    data = load_digits(seed)
    data = data.take(torch.arange(SAMPLES))
    wrong = torch.rand(SAMPLES) < WRONG
    data.y_train[wrong] = (data.y_train[wrong] + torch.randint(1, 10, (int(wrong.sum()),))) % 10
    model = nn.Sequential(
        nn.Linear(data.pixels, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)
    )
    planted = f"a net of width {WIDTH} on {SAMPLES} images, {WRONG:.0%} of them with a wrong label, no regularisation"
    return Setup(planted, data, model, torch.optim.Adam(model.parameters(), lr=5e-4), epochs=100, batch_size=50)
