"""How the loss goes along the step that the optimiser would take: where it is lowest, and by how much."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainwatch.record import RunRecord
from trainwatch.symptoms.gradients import learning_rate

ROUNDING = 1e-6  # of the loss: changes below it are those of float32 arithmetic


@dataclass(frozen=True)
class StepLine:
    """The loss of batches along steps that were taken from others.

    Attributes:
        step: Optimiser steps taken when it was measured.
        rate: Learning rate there.
        lengths: Lengths, in steps of the optimiser, from 0 on, shape (n,).
        losses: Mean loss at each, shape (n,).
        best: Length at which the loss is lowest.
        fall: By how much it is lower there than at length 0.
        error: Standard error of `fall`, over batches.
    """

    step: int
    rate: float
    lengths: NDArray[np.float64] = field(repr=False)
    losses: NDArray[np.float64] = field(repr=False)
    best: float
    fall: float
    error: float


def step_line(record: RunRecord) -> StepLine | None:
    """The line measured last, for `RunRecord.memo`; None where there is none, or it is too short to show anything."""
    measured = record.latest("step_line", "train")
    if measured is None:
        return None
    step, (lengths, losses, errors) = measured[0], measured[1].T
    tried = np.isfinite(losses)
    if not tried[0] or np.ptp(losses[tried]) <= ROUNDING * abs(losses[0]):
        return None
    lowest = int(np.nanargmin(np.where(tried, losses, np.nan)))
    return StepLine(
        step=step,
        rate=learning_rate(record, max(step - 1, 0)),
        lengths=lengths[tried],
        losses=losses[tried],
        best=float(lengths[lowest]),
        fall=float(losses[0] - losses[lowest]),
        error=float(errors[lowest]),
    )
