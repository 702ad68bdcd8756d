"""What copies that learned from the start tell TW107, TW108, TW204, TW301, TW305, TW309 and TW602."""

from __future__ import annotations

from dataclasses import dataclass

from trainwatch.diagnosis import Evidence
from trainwatch.record import RunRecord
from trainwatch.rules.base import ProbeRequest
from trainwatch.symptoms.begun_again import (
    BegunAgain,
    higher_rate,
    standard_inputs,
    standard_targets,
    usual_start,
    wider,
)
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.plateau import SURE

BEST = 0.98  # share of the loss of a constant guess: where more is gone, no other beginning is tried
MOST = 1e3  # standard errors: a lead is no surer than that
PRIORITY = 0.648  # of standardised data, where they are out of the ordinary
CHANGED = {"usual": "usual weights", "rectified": "usual weights and ReLUs"}


@dataclass(frozen=True)
class Ahead:
    """A copy that leads by enough.

    Attributes:
        changed: What it has that the run has not.
        copy: Its losses beside those of the run, and of another that is as the run.
        least: What counts.
        factor: On the learning rate.
        measure: What was compared in validation.
    """

    changed: str
    copy: BegunAgain
    least: float
    factor: float = 1.0
    measure: str = "validation loss"

    @property
    def margin(self) -> float:
        """Standard errors by which it leads by more than that; it leads surely."""
        return lead(self.copy.gain, self.least, self.copy.error)

    @property
    def told(self) -> str:
        """The lead in words."""
        before, usual, other = self.copy.validation
        return (
            f"a copy with {self.changed} came to a {self.measure} of {other:.3g}, where another came to {usual:.3g} "
            f"without, and the run ended at {before:.3g}"
        )

    @property
    def shown(self) -> Evidence:
        """The lead as evidence."""
        copy, (before, usual, other) = self.copy, self.copy.training
        note = (
            f"in validation, over the other copy and the run at its best; standard error {copy.error:.2g}; in training "
            f"{other:.3g} against {usual:.3g} and {before:.3g}"
        )
        return Evidence(f"lead of the copy with {self.changed}", copy.gain, self.least, step=copy.step, note=note)


def lead(gain: float, least: float, error: float) -> float:
    """Standard errors by which a copy that leads surely does so by more than counts."""
    return min((gain - least) / max(error, 1e-12) + SURE, MOST)


def faster_better(record: RunRecord, share: float, learned: float = 0.0) -> Ahead | None:
    """The copy at a higher rate, where it leads by a share of the loss of a constant guess, in training by another."""
    course, copy = record.memo(loss_course), record.memo(higher_rate)
    if course is None or copy is None or not copy.fits(learned * course.span, least := share * course.span):
        return None
    return Ahead(f"{copy.factor:.3g} times the learning rate", copy, least, copy.factor)


def usual_wanted(record: RunRecord, reason: str) -> ProbeRequest | None:
    """Copies from usual weights, where something is left to learn."""
    course = record.memo(loss_course)
    if course is None or course.gained >= BEST:
        return None
    return ProbeRequest("usual_start", (), reason, priority=0.645)


def begun_better(record: RunRecord, share: float, *names: str) -> Ahead | None:
    """The copy of these that leads most, by at least a share of the loss of a constant guess."""
    course, copies = record.memo(loss_course), record.memo(usual_start)
    if course is None:
        return None
    least = share * course.span
    leading = [Ahead(CHANGED[name], copies[name], least) for name in names if name in copies]
    return max((one for one in leading if one.copy.leads(least)), key=lambda one: one.copy.gain, default=None)


def standard_wanted(record: RunRecord, what: str) -> ProbeRequest | None:
    """Copies that learn from standardised ``inputs`` or ``targets``, where something is left to learn."""
    course = record.memo(loss_course)
    if course is None or course.gained >= BEST:
        return None
    return ProbeRequest(f"standard_{what}", (), f"{what} are out of the ordinary: does their scale cost?", PRIORITY)


def inputs_better(record: RunRecord, share: float) -> Ahead | None:
    """The copy on standardised inputs, where it leads by at least a share of the loss of a constant guess."""
    course, copy = record.memo(loss_course), record.memo(standard_inputs)
    if course is None or copy is None or not copy.leads(least := share * course.span):
        return None
    return Ahead("standardised inputs", copy, least)


def targets_better(record: RunRecord, share: float, explained: float) -> Ahead | None:
    """The copy on standardised targets, where it explains at least a share more of their variance.

    And so much of it: a copy that learns nothing may say 0, which is the mean of standardised targets and of no others.
    """
    copy = record.memo(standard_targets)
    if copy is None or not copy.leads(share) or copy.training[2] > 1 - explained:
        return None
    return Ahead("standardised targets", copy, share, measure="mean squared error over the variance")


def targets_no_better(record: RunRecord, share: float, explained: float) -> bool:
    """The copy on standardised targets surely explains no such share more than the run, nor than the copy without.

    And so much of them: one that learns nothing, as at a rate fit for targets of a thousand, says nothing of the scale.
    """
    copy = record.memo(standard_targets)
    return copy is not None and copy.bound < share and copy.training[2] <= 1 - explained


def wider_better(record: RunRecord, room: float, gain: float) -> Ahead | None:
    """The wider copy, where it is better by shares of the loss of a constant guess, in training and validation."""
    course, copy = record.memo(loss_course), record.memo(wider)
    if course is None or copy is None or not copy.fits(room * course.span, least := gain * course.span):
        return None
    return Ahead(f"{copy.times} times the width", copy, least)
