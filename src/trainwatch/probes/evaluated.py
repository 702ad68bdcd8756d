"""The loss of held batches as a verdict on fit must compare it: in evaluation mode, training and validation alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainwatch.probes.bench import Batch, Bench

KIND = "train_eval"
QUANTITIES = ("evaluated_loss",)
AT_END = True
STEPS = 16  # some 50 forward passes
FEW = 512  # samples
MANY = 64  # batches: all that are held


def measure(bench: Bench) -> None:
    """Record the loss of held training batches in both modes and of held validation batches in evaluation mode.

    A row of `evaluated_loss` is (training in evaluation mode, its standard error, training in training mode,
    validation in evaluation mode, its standard error).
    """
    batches, others = bench.batches("train", MANY), bench.held("val", MANY)
    with bench.model() as model:
        evaluating, validating = losses_of(model, batches), losses_of(model, others)
    with bench.model(training=True) as model:
        training = losses_of(model, batches)
    row = [*mean_and_error(evaluating), mean_and_error(training)[0], *mean_and_error(validating)]
    bench.record.append("evaluated_loss", "held", bench.step, row)


def few(batches: Sequence[Batch], samples: int = FEW) -> Sequence[Batch]:
    """The first batches, with so many samples or a few more: for experiments that look at them time and again."""
    seen = np.cumsum([0, *(batch.samples for batch in batches)])
    return batches[: int(np.searchsorted(seen, samples))]


def losses_of(model: nn.Module, batches: Sequence[Batch]) -> NDArray[np.float64]:
    """Loss of each sample of some batches (of each batch, where its samples' cannot be had), shape (n,)."""
    if not batches:
        return np.zeros(0)
    with torch.no_grad():
        return torch.cat([batch.losses(model).float() for batch in batches]).cpu().numpy().astype(np.float64)


def mean_and_error(losses: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and its standard error, absent where there are no losses, or no two."""
    known = losses[~np.isnan(losses)]
    if len(known) < 2:
        return (float(known[0]) if len(known) else np.nan), np.nan
    with np.errstate(invalid="ignore", over="ignore"):  # losses may be infinite
        return float(known.mean()), float(known.std(ddof=1) / len(known) ** 0.5)
