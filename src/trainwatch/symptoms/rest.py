"""What the optimiser gained lately: how far the loss fell at the end of a run, so far, and since a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.plateau import STRETCH, training_trend, validation_trend


@dataclass(frozen=True)
class Rest:
    """How far the loss fell in the last third of the steps taken so far.

    Attributes:
        steps: So many steps those are.
        fall: By training or validation, whichever fell more.
        error: Standard error of a fall, the lesser of the two: the samples of validation are always the same.
        level: Training loss now.
        scale: Loss of a constant guess, else the first loss, as a positive number.
        learned: Share of it that is gone.
        known: The loss of a constant guess is known.
    """

    steps: int
    fall: float
    error: float
    level: float
    scale: float
    learned: float
    known: bool


def rest_of(record: RunRecord) -> Rest | None:
    """For `RunRecord.memo`; None where there are too few steps, or losses that are not finite."""
    course, training = record.memo(loss_course), record.memo(training_trend)
    if course is None or training is None:
        return None
    curve, validation = record.memo(validation_curve), record.memo(validation_trend)
    trends = [training]
    if validation is not None and curve is not None and curve.same_criterion:
        trends.append(validation)
    return Rest(
        steps=round(training.last_step * (1 - 1 / STRETCH)),
        fall=max(trend.fall for trend in trends),
        error=min(trend.fall_error for trend in trends),
        level=training.end,
        scale=abs(course.reference if training.chance is None else training.chance),
        learned=course.gained,
        known=training.chance is not None,
    )


def fall_since(record: RunRecord, step: int) -> float:
    """Fall of the training loss from the third of the run that ended at a step to now; 0 where that is not known."""
    course, training = record.memo(loss_course), record.memo(training_trend)
    if course is None or training is None:
        return 0.0
    before = course.values[(course.steps < step) & (course.steps >= step / STRETCH)]
    return float(np.median(before)) - training.end if len(before) else 0.0
