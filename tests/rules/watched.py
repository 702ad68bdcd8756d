"""Small real trainings through `watch` on batches as told."""

import numpy as np
import torch
from torch import nn

import trainwatch

SETTINGS = {"quiet": True, "strict": True}


def watched(model, optimizer, batches, criterion, *, clip=None, scheduler=None):
    """Take one step on each batch and give back the record.

    Args:
        batches: Pairs of inputs and targets; a `DataLoader` is one epoch of them.
        clip: Norm at which the gradient is clipped.
        scheduler: Stepped after each step of the optimiser.
    """
    torch.set_num_threads(1)
    with trainwatch.watch(model, optimizer, loss_fn=criterion, settings=SETTINGS) as watch:
        for inputs, targets in batches:
            optimizer.zero_grad()
            criterion(model(inputs), targets).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    return watch.record


def drawn(x, y, *, batch, steps, seed=0):
    """Batches drawn at random."""
    draw = np.random.default_rng(seed)
    for _ in range(steps):
        rows = torch.as_tensor(draw.integers(0, len(x), batch))
        yield x[rows], y[rows]
