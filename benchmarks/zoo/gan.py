"""A small generative adversarial net: two models, two optimisers, losses that need not fall."""

from __future__ import annotations

import torch
from torch import nn

import trainwatch
from benchmarks.zoo.data import Sets
from benchmarks.zoo.models import build
from benchmarks.zoo.scenario import Scenario
from trainwatch.record import RunRecord

NOISE = 8


def run(scenario: Scenario, sets: Sets, settings: trainwatch.Settings) -> RunRecord:
    """Train a generator against a discriminator of the scenario's widths."""
    real = sets.x_train.flatten(1)
    models = nn.ModuleDict(
        {
            "G": nn.Sequential(nn.Linear(NOISE, 64), nn.ReLU(), nn.Linear(64, real.shape[1])),
            "D": build(scenario.model, Sets("classes", 1, real, sets.y_train, real, sets.y_val)),
        }
    )
    optimizers = {k: torch.optim.Adam(m.parameters(), scenario.optimizer.lr, (0.5, 0.999)) for k, m in models.items()}
    loss_fn = nn.BCEWithLogitsLoss()
    with trainwatch.watch(dict(models), optimizers, loss_fn=loss_fn, settings=settings) as watch:
        for _ in range(scenario.loop.epochs):
            for rows in torch.randperm(len(real)).split(scenario.loop.batch):
                x, n = real[rows], len(rows)
                fake = models["G"](torch.randn(n, NOISE))
                optimizers["D"].zero_grad()
                loss_real = loss_fn(models["D"](x), torch.ones(n, 1))
                loss_fake = loss_fn(models["D"](fake.detach()), torch.zeros(n, 1))
                (loss_real + loss_fake).backward()
                optimizers["D"].step()
                optimizers["G"].zero_grad()
                loss_fn(models["D"](fake), torch.ones(n, 1)).backward()
                optimizers["G"].step()
    return watch.record
