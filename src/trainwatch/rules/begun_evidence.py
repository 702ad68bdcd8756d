"""What copies that learned from the start tell TW301, TW305, TW309 and TW602."""

from __future__ import annotations

from trainwatch.diagnosis import Evidence
from trainwatch.record import RunRecord
from trainwatch.rules.base import ProbeRequest
from trainwatch.symptoms.begun_again import BegunAgain, usual_start
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.plateau import SURE

BEST = 0.98  # share of the loss of a constant guess: where more is gone, no other beginning is tried
CHANGED = {"usual": "usual weights", "rectified": "usual weights and ReLUs"}


def usual_wanted(record: RunRecord, reason: str) -> ProbeRequest | None:
    """Copies from usual weights, where something is left to learn."""
    course = record.memo(loss_course)
    if course is None or course.gained >= BEST:
        return None
    return ProbeRequest("usual_start", (), reason, priority=0.645)


def begun_better(record: RunRecord, share: float, *names: str) -> tuple[str, BegunAgain, float] | None:
    """The copy of these that leads most, by what it differs, and the least that counts: a share of a guess's loss."""
    course, copies = record.memo(loss_course), record.memo(usual_start)
    if course is None:
        return None
    least = share * abs(course.reference)
    leading = [(CHANGED[name], copies[name], least) for name in names if name in copies and copies[name].leads(least)]
    return max(leading, key=lambda one: one[1].gain, default=None)


def compared(copy: BegunAgain) -> str:
    """The losses of a copy, of the other and of the run, in words."""
    before, usual, other = copy.validation
    return (
        f"came to a validation loss of {other:.3g}, where another came to {usual:.3g} as the run began, which ended "
        f"at {before:.3g}"
    )


def led_by(copy: BegunAgain, least: float, where: str) -> Evidence:
    """By how much a copy leads."""
    note = (
        f"in validation, over the other copy and the run at its best; standard error {copy.error:.2g}; in training "
        f"{copy.training[2]:.3g} against {copy.training[1]:.3g} and {copy.training[0]:.3g}"
    )
    return Evidence(f"lead of the copy {where}", copy.gain, least, step=copy.step, note=note)


def lead_margin(copy: BegunAgain, least: float) -> float:
    """Standard errors by which it leads by more than that; it leads surely."""
    return (copy.gain - least) / max(copy.error, 1e-12) + SURE
