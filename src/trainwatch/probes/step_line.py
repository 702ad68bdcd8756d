"""The loss along the step that the optimiser would take now: how long that step could well be (§9)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.isolation import CannotIsolate, untouched

KIND = "step_line"
QUANTITIES = ("step_line",)
# In steps of the optimiser; those beyond the fourth are tried as long as the loss goes on falling.
LENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, *(4.0 * 2**k for k in range(1, 11)))
ALWAYS = 6


def measure(bench: Bench) -> None:
    """On copies, take one step from each held batch and measure the loss of the other batches along it.

    A row of `step_line` has the mean loss at each of `LENGTHS`, and the standard error of its change from length 0
    over the batches that steps were taken from; what was not tried is absent.
    """
    batches = bench.batches("train")
    if len(batches) < 2:
        raise CannotIsolate("fewer than two batches are held: a step from one cannot be tried on another")
    lines = np.array([_line(bench, batch, [b for b in batches if b is not batch]) for batch in batches])
    changes = lines - lines[:, :1]
    error = changes.std(0, ddof=1) / len(lines) ** 0.5
    bench.record.append("step_line", "train", bench.step, np.stack([lines.mean(0), error], 1))


def _line(bench: Bench, source: Batch, others: Sequence[Batch]) -> list[float]:
    """Mean loss of the other batches at each length of the step from one batch."""
    with bench.learner(further=3) as (model, optimizer):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        start = [p.detach().clone() for p in parameters]
        bench.train_step(source, model, optimizer)
        step = torch._foreach_sub(parameters, start)
        losses: list[float] = []
        for n, length in enumerate(LENGTHS):
            if n > ALWAYS and not losses[-1] < losses[-2]:
                break
            with torch.no_grad():
                for parameter, origin, direction in zip(parameters, start, step, strict=True):
                    parameter.copy_(origin + length * direction)
            losses.append(_mean_loss(model, others, bench.device))
    return losses + [np.nan] * (len(LENGTHS) - len(losses))


def _mean_loss(model: nn.Module, batches: Sequence[Batch], device: torch.device) -> float:
    """Mean over batches, always with the same random numbers: each loss leaves them as they were."""
    losses = []
    for batch in batches:
        with untouched(device), torch.no_grad():
            losses.append(batch.loss(model).detach().mean())
    return float(torch.stack(losses).mean())
