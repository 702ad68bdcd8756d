"""What TW601 says of steps after which the loss leapt, and of such as are long all along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.step_remedies import lower_rate, shorter_is_better, shorter_steps, tried_lengths
from trainwatch.symptoms.begun_again import Calmer
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.gradients import learning_rate
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


def leapt(
    record: RunRecord,
    course: LossCourse,
    onset: int,
    update: tuple[int, float],
    limit: float,
    came: str,
    shown: Evidence,
) -> dict[str, Any]:
    """Fields of a diagnosis: the longest update before the loss leapt, what came of the run, what of shorter steps."""
    step, ratio = update
    rate = learning_rate(record, step)
    return {
        "summary": f"With a learning rate of {rate:.3g} the update at step {step} was {ratio:.2g} times the weights' "
        f"length; the loss rose at step {onset} and {came}",
        "onset_step": onset,
        "evidence": (
            Evidence("update over weights", ratio, limit, step=step, note=f"lr {rate:.3g}"),
            shown,
            Evidence("highest loss", float(course.values.max()), where=course.stream, step=onset),
            *tried_lengths(shorter_is_better(record), 1.0),
        ),
        "remedies": tuple(shorter_steps(record, rate, ratio, step)),
    }


def no_better(course: LossCourse, learned: float) -> tuple[str, Evidence]:
    """What came of a run whose training loss leapt, and the number that shows it."""
    shown = Evidence("loss at the end", course.end, course.bound(learned), where=course.stream)
    return f"the run is no better for training: {course.story}", shown


def lost_in_validation(record: RunRecord, times: float) -> tuple[float, tuple[str, Evidence]] | None:
    """The same of a run that came to fit its training samples, and whose validation loss stayed far above a guess.

    Args:
        record: The run.
        times: A constant guess.

    Returns:
        Standard errors that the lowest pass lies above so many guesses, and the same two; None where it does not, or
        the two losses are not of one criterion.
    """
    curve = record.memo(validation_curve)
    if curve is None or curve.kept is None or curve.chance is None or not curve.same_criterion:
        return None
    passes = np.flatnonzero(curve.steps > 0)
    if not times < (kept := curve.kept[passes]).min(initial=np.inf) < np.inf:
        return None
    lowest, bound = passes[kept.argmin()], curve.floor + times * abs(curve.chance - curve.floor)
    apart = curve.weights * (curve.losses[lowest] - curve.mean[lowest])
    error = max(float(np.sqrt((apart**2).sum())), 1e-3 * bound)
    told = f"no pass of validation came below {curve.mean[lowest]:.3g} ({curve.chance:.3g} is chance)"
    shown = Evidence("lowest validation loss", float(curve.mean[lowest]), bound, where=curve.stream,
                     step=int(curve.steps[lowest]), note=f"standard error {error:.2g}")  # fmt: skip
    return float(min((curve.mean[lowest] - bound) / error, 1e3)), (told, shown)


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
