"""Inputs or targets of held batches brought to mean 0 and deviation 1, and copies that learn from those (§10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trainwatch.probes.begun_again import begin_again, best_look
from trainwatch.probes.bench import Bench, Exchangeable
from trainwatch.probes.evaluated import Losses
from trainwatch.probes.isolation import CannotIsolate

FEWEST, MOST = 60, 400  # steps of each copy: as many as the run took, within these bounds
MARKS = 5  # times that a copy is looked at
LOOKS = 60  # steps that the looks at the losses are worth
STEPS = 2 * FEWEST + LOOKS
ROUNDING = 32  # units in the last place that a mean of many may be off

Evaluate = Callable[[nn.Module, Sequence[Exchangeable]], Losses]


@dataclass(frozen=True)
class Scale:
    """Mean and deviation, for each feature where there are several.

    Attributes:
        mean, deviation: Shaped so that they can be taken off tensors of the kind; a constant has deviation 1.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor in this scale."""
        return (tensor - self.mean) / self.deviation


def scale_of(tensors: Sequence[torch.Tensor], axis: int | None) -> Scale:
    """The scale of some batches.

    Args:
        tensors: One of each batch, alike in all dimensions but the first.
        axis: The dimension of features; None where all numbers are alike.

    Raises:
        CannotIsolate: They are not alike, or not all finite.
    """
    if len({(t.shape[1:], t.dtype, t.device) for t in tensors}) != 1:
        raise CannotIsolate("batches differ in more than their number of samples")
    whole = torch.cat([t.detach() for t in tensors])
    if not whole.isfinite().all():
        raise CannotIsolate("not all numbers are finite")
    others = [d for d in range(whole.ndim) if axis is None or d != axis % whole.ndim]
    mean = whole.mean(others, keepdim=True)
    deviation = (whole - mean).square().mean(others, keepdim=True).sqrt()
    still = deviation <= ROUNDING * torch.finfo(whole.dtype).eps * whole.abs().max()
    return Scale(mean, torch.where(still, 1.0, deviation))


def exchangeable(batches: Sequence[object]) -> list[Exchangeable]:
    """Batches whose tensors can be replaced.

    Raises:
        CannotIsolate: Some cannot.
    """
    found = [batch for batch in batches if isinstance(batch, Exchangeable)]
    if len(found) < len(batches):
        raise CannotIsolate("the tensors of held batches cannot be replaced")
    return found


def learned(
    bench: Bench, sides: tuple[Sequence[Exchangeable], Sequence[Exchangeable]], evaluate: Evaluate
) -> tuple[Losses, Losses]:
    """Losses of training and of validation batches of a copy that learned from the start, at its best."""
    steps = max(FEWEST, int(min(bench.step, MOST, (bench.affords - LOOKS) / 2)))
    with bench.learner() as (model, optimizer):
        begin_again(bench, model, optimizer)
        return best_look(bench, model, optimizer, sides, steps, MARKS, evaluate)
