"""The loss along the step that the optimiser would take now: how long that step could well be (§9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.isolation import CannotIsolate, untouched

KIND = "step_line"
QUANTITIES = ("step_line",)
STEPS = 60
MANY, PARTS = 8, 4  # batches
# In steps of the optimiser; those beyond the fourth are tried as long as the loss goes on falling.
LENGTHS = (0.0, 1 / 64, 1 / 16, 0.25, 0.5, 1.0, 2.0, 4.0, *(4.0 * 2**k for k in range(1, 11)))
ALWAYS = LENGTHS.index(4.0) + 1


def measure(bench: Bench) -> None:
    """On copies, leave a part of the held batches out in turn, step by the others and measure its loss along the step.

    A row of `step_line` has a line for each of `LENGTHS`: the length, the mean loss there, and the standard error of
    its change from length 0 over the parts. Losses that were not tried are absent.
    """
    batches = bench.batches("train", MANY)
    if len(batches) < 2:
        raise CannotIsolate("fewer than two batches are held: a step from one cannot be tried on another")
    parts = [batches[i::PARTS] for i in range(min(PARTS, len(batches)))]
    lines = np.array(
        [
            _line(bench, Together([b for b in batches if all(b is not other for other in part)]), Together(part))
            for part in parts
        ]
    )
    changes = lines - lines[:, :1]
    error = changes.std(0, ddof=1) / len(lines) ** 0.5
    bench.record.append("step_line", "train", bench.step, np.stack([LENGTHS, lines.mean(0), error], 1))


@dataclass(frozen=True)
class Together:
    """Several batches as one, whose loss is the mean of theirs: a step from them is less noisy than from one."""

    batches: Sequence[Batch]

    @property
    def samples(self) -> int:
        return self.batches[0].samples  # of one: what a loss is multiplied by does not change

    def predict(self, model: nn.Module) -> torch.Tensor:
        return self.loss(model)

    def loss(self, model: nn.Module) -> torch.Tensor:
        return torch.stack([batch.loss(model).mean() for batch in self.batches]).mean()

    def losses(self, model: nn.Module) -> torch.Tensor:
        return torch.cat([batch.losses(model) for batch in self.batches])


def _line(bench: Bench, source: Batch, judge: Batch) -> list[float]:
    """Loss of some batches at each length of the step from others."""
    with bench.learner(further=3) as (model, optimizer):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        start = [p.detach().clone() for p in parameters]
        bench.train_step(source, model, optimizer)
        step = torch._foreach_sub(parameters, start)
        losses: list[float] = []
        for n, length in enumerate(LENGTHS):
            if n > ALWAYS and not losses[-1] < losses[-2]:
                break
            with untouched(bench.device), torch.no_grad():  # always with the same random numbers
                for parameter, origin, direction in zip(parameters, start, step, strict=True):
                    parameter.copy_(origin + length * direction)
                losses.append(float(judge.loss(model).mean()))
    return losses + [np.nan] * (len(LENGTHS) - len(losses))
