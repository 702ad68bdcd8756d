"""Where the losses of a run came to rest so far, what the optimiser gained lately, and since a step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.experiments import Evaluated, evaluated
from trainwatch.symptoms.losses import LossCourse, loss_course
from trainwatch.symptoms.plateau import STRETCH, Trend, training_trend, validation_trend

FLAT = 0.01  # of the loss of a constant guess: what a fifth of the steps more may gain on a plateau
SURE = 2.0  # standard errors


@dataclass(frozen=True)
class Rest:
    """Training and validation over the last third of the steps taken so far, against the loss of a constant guess.

    Attributes:
        training: Trend of the training loss.
        validation: Trend of the validation loss; None where there are too few passes.
        comparable: Validation is measured by the criterion of training.
        course: The training loss.
        evaluated: Held training batches in evaluation mode, without the noise of dropout, where validation has no
            trend.
    """

    training: Trend
    validation: Trend | None
    comparable: bool
    course: LossCourse = field(repr=False)
    evaluated: Evaluated | None

    @property
    def steps(self) -> int:
        """So many the last third are."""
        return round(self.training.last_step * (1 - 1 / STRETCH))

    @property
    def fall(self) -> float:
        """How far the loss fell in those, by the less noisy of both losses or, for sure, by the other."""
        surest = min(self._alike, key=lambda trend: trend.fall_error)
        return max(surest.fall, *(trend.fall - SURE * trend.fall_error for trend in self._alike))

    @property
    def error(self) -> float:
        """Standard error of a fall, the lesser of the two: the samples of validation are always the same."""
        return min(trend.fall_error for trend in self._alike)

    @property
    def level(self) -> float:
        """Training loss now."""
        return self.training.end

    @property
    def known(self) -> bool:
        """Whether it is known what a constant guess costs in training."""
        return self.training.chance is not None

    @property
    def chance(self) -> float:
        """Loss of a constant guess, else the first loss."""
        return self.course.reference if self.training.chance is None else self.training.chance

    @property
    def scale(self) -> float:
        """What there is to learn below a constant guess, else below the first loss."""
        return self.course.span if self.training.chance is None else self.training.span

    @property
    def learned(self) -> float:
        """Share of it that is gone in training."""
        return self.course.gained

    @property
    def trends(self) -> list[Trend]:
        """Those of which it is known what a constant guess costs, validation first: it is less noisy."""
        return [t for t in (self.validation, self.training) if t is not None and t.chance is not None]

    @property
    def best(self) -> Trend:
        """The one of `trends` that learned more."""
        return max(self.trends, key=lambda trend: trend.learned)

    @property
    def gone(self) -> float:
        """Share of the loss of a constant guess that is gone at the end, in training or validation."""
        best, look = self.best, self.evaluated
        seen = (best.chance - look.training) / best.span if look and best.chance is not None and best.span else -np.inf
        return max(best.learned, seen)

    @property
    def gone_error(self) -> float:
        """Standard error of `gone`."""
        return self.best.fall_error / (self.best.span or 1.0)

    @property
    def guess(self) -> float:
        """What there is to learn below the constant guess that the first of `trends` is held against."""
        return self.trends[0].span or 1.0

    @property
    def flat(self) -> bool:
        """The loss lies on a plateau."""
        return self.trends[0].gains_less_than(FLAT, of=self.guess)

    def falls_short_of(self, share: float) -> bool:
        """Even half as many steps again would not bring it to that share of the loss of a constant guess."""
        return self.trends[0].gains_less_than(share - max(self.gone, 0.0), of=self.guess, steps=0.5)

    @property
    def story(self) -> str:
        """Where it came to rest, in words that begin a summary."""
        return (
            f"training {'has come to rest' if self.flat else 'ended'} at a loss of {self.level:.3g}, with "
            f"{max(self.gone, 0.0):.0%} of the loss of a constant guess gone"
        )

    @property
    def _alike(self) -> list[Trend]:
        return [self.training, *([self.validation] if self.validation is not None and self.comparable else [])]


def rest_of(record: RunRecord) -> Rest | None:
    """For `RunRecord.memo`; None where there are too few steps, or losses that are not finite."""
    course, training = record.memo(loss_course), record.memo(training_trend)
    if course is None or training is None:
        return None
    curve, validation = record.memo(validation_curve), record.memo(validation_trend)
    comparable = curve is not None and curve.same_criterion
    look = record.memo(evaluated) if validation is None else None
    return Rest(training, validation, comparable, course, look)


def fall_since(record: RunRecord, step: int) -> float:
    """Fall of the training loss from the third of the run that ended at a step to now; 0 where that is not known."""
    course, training = record.memo(loss_course), record.memo(training_trend)
    if course is None or training is None:
        return 0.0
    before = course.values[(course.steps < step) & (course.steps >= step / STRETCH)]
    return float(np.median(before)) - training.end if len(before) else 0.0
