"""Preflights of small nets."""

import torch
from torch import nn

from trainwatch.checks.batch import one_batch
from trainwatch.checks.preflight import Preflight
from trainwatch.config import Settings

STRICT = Settings(quiet=True, strict=True)
CE = nn.CrossEntropyLoss


def net(inputs=12, outputs=4, width=32):
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))


def batch(n=16, inputs=12, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, inputs, generator=generator), torch.arange(n) % classes


def tried(model, loss_fn, given, optimizer=None, **options):
    """The report on a model, by a clock that stands still: however slow the machine, all is measured."""
    preflight = Preflight(STRICT, clock=lambda: 0.0)
    return preflight.judge(model, optimizer, one_batch(given, loss_fn, model), **options)


def only(report):
    """The single finding of a report."""
    (found,) = (d for d in report.diagnoses if d.severity > "info")
    return found


class Forward(nn.Module):
    """A module whose forward pass is a function of itself and the inputs."""

    def __init__(self, forward, **parts):
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self._forward(self, *inputs)
