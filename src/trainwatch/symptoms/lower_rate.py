"""What going on at a lower learning rate was worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord


@dataclass(frozen=True)
class Gain:
    """Mean losses of copies of the model that went on at the present rate and at a lower one.

    Attributes:
        present: At the present rate.
        lower: At the lower one.
        error: Standard error of their difference, over samples.
    """

    present: float
    lower: float
    error: float

    @property
    def value(self) -> float:
        """By how much less the loss is at the lower rate."""
        return self.present - self.lower


@dataclass(frozen=True)
class LowerRate:
    """Gains on held batches, in evaluation mode.

    Attributes:
        step: Optimiser steps taken before.
        share: The lower rate over the present one.
        training: On the batches that the copies learned from.
        validation: On others, since what is gained in training alone may be learned by heart; None where none is held.
    """

    step: int
    share: float
    training: Gain
    validation: Gain | None


def lower_rate(record: RunRecord) -> LowerRate | None:
    """What was measured last, for `RunRecord.memo`; None where nothing was, or a copy's loss was not finite."""
    measured = record.latest("lower_rate", "held")
    if measured is None or not np.isfinite(measured[1][1:3]).all():
        return None
    step, (share, *losses) = measured[0], measured[1].tolist()
    training, validation = Gain(*losses[:3]), Gain(*losses[3:])
    return LowerRate(step, share, training, validation if np.isfinite(validation.value) else None)
