"""What copies found that learned from the start: at a higher rate, from usual weights, on standardised data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.experiments import worsened
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.plateau import SURE


@dataclass(frozen=True)
class BegunAgain:
    """Two copies that learned from the start, as the run did and with one thing changed.

    Attributes:
        training: Of training batches: loss at the end of the run, of the copy that learned as it did, of the other.
        validation: The same of validation batches.
        gain: By how much the changed copy is better in validation than the other and the run at its best.
        error: Standard error of its lead over the one of both that it leads less surely.
        sure: Its leads over both are beyond noise.
        bound: What neither of its leads surely exceeds.
        step: Optimiser steps taken before.
    """

    training: tuple[float, float, float]
    validation: tuple[float, float, float]
    gain: float
    error: float
    sure: bool
    bound: float
    step: int

    def leads(self, least: float) -> bool:
        """The changed copy is better in validation by so much, beyond noise, and in training at all."""
        return self.training[2] < min(self.training[:2]) and self.gain > max(least, 0.0) and self.sure

    def fits(self, more: float, least: float) -> bool:
        """It is better by so much in training, too."""
        return min(self.training[:2]) - self.training[2] > more and self.leads(least)


@dataclass(frozen=True)
class OtherRate(BegunAgain):
    """Two copies, one of them at `factor` times the rate of the run, the other at its highest one; both rates fall.

    Attributes:
        factor: See there.
        rested: By how much the other is better in validation than the run at its best.
        steps: That each copy took; NaN where that is not known.
    """

    factor: float
    rested: float
    steps: float

    def outlasts(self, least: float) -> bool:
        """The copy at the run's highest rate is better than the run by so much, in both, and in one beyond noise."""
        return self.training[0] - self.training[1] > least and self.rested > max(least, SURE * self.error)


@dataclass(frozen=True)
class Wider(BegunAgain):
    """Two copies, one of them several times as wide.

    Attributes:
        times: How many times.
    """

    times: int


@dataclass(frozen=True)
class Calmer:
    """A copy that learned from the start, at a rate that fell to nothing.

    Attributes:
        factor: On the highest rate of the run.
        training: Of training batches: loss at the end of the run, of the copy.
        validation: Of validation batches: loss of the run at its best, of the copy.
        error: Standard error of the latter two's difference.
        step: Optimiser steps taken before.
    """

    factor: float
    training: tuple[float, float]
    validation: tuple[float, float]
    error: float
    step: int

    @property
    def gain(self) -> float:
        """By how much the copy is better in validation."""
        return self.validation[0] - self.validation[1]

    def leads(self, least: float) -> bool:
        """The copy is better by so much, in training and, beyond noise, in validation."""
        return self.training[0] - self.training[1] > least and self.gain > max(least, SURE * self.error)


def higher_rate(record: RunRecord) -> OtherRate | None:
    """What a higher rate would have brought, for `RunRecord.memo`; None where it was not tried, or failed."""
    row = record.latest("higher_rate", "held")
    found = None if row is None else _begun_again(record, row[0], row[1][1:11].tolist())
    if row is None or found is None:
        return None
    before, usual, _ = found.validation
    steps = float(row[1][11]) if len(row[1]) > 11 else np.nan
    return OtherRate(**vars(found), factor=float(row[1][0]), rested=before - worsened(record) - usual, steps=steps)


def calmer(record: RunRecord) -> Calmer | None:
    """The better of both copies of `lower_start`, for `RunRecord.memo`; None where none was tried, or it failed."""
    row = record.latest("lower_start", "held")
    if row is None or record.memo(validation_curve) is None or not np.isfinite(row[1]).all():
        return None
    factor, before, usual, lower, _, _, val_before, val_usual, val_lower, error, before_error = row[1][:11].tolist()
    best = val_before - worsened(record)
    copies = (
        Calmer(1.0, (before, usual), (best, val_usual), float(np.hypot(error, before_error)), row[0]),
        Calmer(factor, (before, lower), (best, val_lower), before_error, row[0]),
    )
    return min(copies, key=lambda copy: copy.validation[1])


def usual_start(record: RunRecord) -> dict[str, BegunAgain]:
    """What usual weights would have brought, and rectified units, for `RunRecord.memo`; what succeeded."""
    rows = {name: record.latest("usual_start", name) for name in record.keys("usual_start")}
    found = {name: _begun_again(record, row[0], row[1].tolist()) for name, row in rows.items() if row is not None}
    return {name: one for name, one in found.items() if one is not None}


def standard_inputs(record: RunRecord) -> BegunAgain | None:
    """What standardised inputs would have brought, for `RunRecord.memo`; None where it was not tried, or failed."""
    row = record.latest("standard_inputs", "held")
    return None if row is None else _begun_again(record, row[0], row[1].tolist())


def standard_targets(record: RunRecord) -> BegunAgain | None:
    """What standardised targets would have brought, in variances, for `RunRecord.memo`; None as above."""
    row, course = record.latest("standard_targets", "held"), record.memo(loss_course)
    if row is None or course is None:
        return None
    return _begun_again(record, row[0], row[1].tolist(), unit=course.span)


def wider(record: RunRecord) -> Wider | None:
    """What wider layers would have brought, for `RunRecord.memo`; None where that was not tried, or failed."""
    row = record.latest("wider", "held")
    found = None if row is None else _begun_again(record, row[0], row[1][:10].tolist())
    return None if row is None or found is None else Wider(**vars(found), times=round(row[1][10]))


def _begun_again(record: RunRecord, step: int, row: Sequence[float], unit: float = 1.0) -> BegunAgain | None:
    curve = record.memo(validation_curve)
    if curve is None or not np.isfinite(row).all():
        return None
    training, validation = _three(row[:3]), _three(row[5:8])
    best = validation[0] - worsened(record) / unit
    leads = [(validation[1] - validation[2], row[8]), (best - validation[2], row[9])]
    _, error = min(leads, key=lambda lead: lead[0] - SURE * lead[1])
    sure = all(gain > SURE * error for gain, error in leads)
    bound = max(gain + SURE * error for gain, error in leads)
    return BegunAgain(training, validation, min(gain for gain, _ in leads), error, sure, bound, step)


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    before, usual, other = values
    return before, usual, other
