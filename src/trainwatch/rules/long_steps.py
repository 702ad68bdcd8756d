"""What TW601 says of steps that are long all along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.rules.begun_evidence import Ahead
from trainwatch.rules.step_remedies import lower_rate, shorter_is_better, tried_lengths
from trainwatch.symptoms.losses import LossCourse
from trainwatch.symptoms.motion import Reach


def all_along(record: RunRecord, reach: Reach, limit: float, told: str, shown: Evidence) -> dict[str, Any]:
    """Fields of a diagnosis: the mean update beside its limit, and what came of that."""
    mean = reach.total / reach.steps
    return {
        "summary": f"With a learning rate of {reach.rate:.3g} an update is on average {mean:.2g} times the weights' "
        f"length at the start, and {told}",
        "onset_step": 0,
        "evidence": (
            Evidence("mean update over weights", mean, limit, step=record.steps),
            shown,
            *tried_lengths(shorter_is_better(record), 1.0),
        ),
    }


def ended(record: RunRecord, course: LossCourse, bound: float, onset: int) -> Iterator[Evidence]:
    """Where a loss that leapt came to be, and what came of shorter steps."""
    yield Evidence("loss at the end", course.end, bound, where=course.stream)
    yield Evidence("highest loss", float(course.values.max()), where=course.stream, step=onset)
    yield from tried_lengths(shorter_is_better(record), 1.0)


def gone(course: LossCourse, gained: float, fair: float) -> Evidence:
    """How much of the loss is gone, and should be."""
    note = "the lesser of training and validation" if gained != course.gained else ""
    return Evidence("share of the loss that training removed", gained, fair, where=course.stream, note=note)


def the_tried_rate(reach: Reach, ahead: Ahead) -> Remedy:
    """The rate by which a copy did better."""
    return lower_rate(reach.optimizer, reach.rate, ahead.factor * reach.rate, f"Tried from the start: {ahead.told}.")
