"""What TW601 says of steps that are long all along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.step_remedies import lower_rate, shorter_is_better, tried_lengths
from trainwatch.symptoms.begun_again import Calmer
from trainwatch.symptoms.losses import LossCourse
from trainwatch.symptoms.motion import Reach
from trainwatch.symptoms.plateau import STARTED, SURE

LOWER = 0.2  # times the rate: what is tried and proposed
MOST = 0.75  # of the way that the run came: a copy that comes as far has learned what there is to learn


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


def harmless(course: LossCourse, copy: Calmer | None, least: float, shorter: bool) -> bool:
    """Whether a copy with shorter steps came as far as the run and no further.

    Further is lower by `least` on other samples and no worse in training, or lower by `least` in training and no worse
    on others, where it must be twice that.

    Args:
        course: Of the training loss.
        copy: None where none was tried.
        least: In the unit of the loss.
        shorter: Its steps were not long: where neither got anywhere, that has another cause.
    """
    if copy is None:
        return False
    run, other = (course.reference - loss for loss in copy.training)
    carries_over = other - run > -least and copy.gain > max(least, SURE * copy.error)
    fits = other - run > (least if copy.gain > 0 else 2 * least)
    as_far = shorter or (course.gained >= STARTED and other >= MOST * run)
    return as_far and not (fits or carries_over)


def ended(record: RunRecord, course: LossCourse, bound: float, onset: int) -> Iterator[Evidence]:
    """Where a loss that leapt came to be, and what came of shorter steps."""
    yield Evidence("loss at the end", course.end, bound, where=course.stream)
    yield Evidence("highest loss", float(course.values.max()), where=course.stream, step=onset)
    yield from tried_lengths(shorter_is_better(record), 1.0)


def gone(course: LossCourse, gained: float, fair: float) -> Evidence:
    """How much of the loss is gone, and should be."""
    note = "the lesser of training and validation" if gained != course.gained else ""
    return Evidence("share of the loss that training removed", gained, fair, where=course.stream, note=note)


def tried(copy: Calmer) -> str:
    """What a copy came to, in words."""
    rate = "such a rate" if copy.factor == 1 else f"{copy.factor:.3g} times that rate"
    return (
        f"a copy that began again at {rate}, which then fell to nothing, came to a validation loss of "
        f"{copy.validation[1]:.3g}; the run was at {copy.validation[0]:.3g} at best"
    )


def lead_of(copy: Calmer, least: float) -> Evidence:
    """By how much a copy is better."""
    note = (
        f"in validation; standard error {copy.error:.2g}; in training {copy.training[1]:.3g} against "
        f"{copy.training[0]:.3g} at the end"
    )
    return Evidence("lead of a copy whose rate fell to nothing", copy.gain, least, step=copy.step, note=note)


def calmer_steps(record: RunRecord, reach: Reach, copy: Calmer) -> Iterator[Remedy]:
    """The rate by which a copy did better, and that it should fall."""
    decay = remedy("decay-learning-rate", steps=record.steps)
    lower = lower_rate(reach.optimizer, reach.rate, LOWER * reach.rate, "Tried from the start, and lowered to nothing.")
    yield from (decay, lower) if copy.factor == 1 else (lower, decay)
