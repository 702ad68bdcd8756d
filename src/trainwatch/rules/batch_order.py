"""What TW105 shows and advises where training batches are no draw from the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trainwatch.diagnosis import Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.batches import BatchClasses
from trainwatch.symptoms.classes import TrainClasses
from trainwatch.symptoms.experiments import evaluated
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.plateau import SURE
from trainwatch.symptoms.processes import class_skew

LAST = 0.2  # of the steps, that the loss of all samples is the mean of


def unless_on_purpose(usual: Severity, loader: dict[str, Any]) -> Severity:
    """A remark where batches are composed on purpose, by a batch sampler."""
    return Severity.INFO if loader and loader.get("batch_size") is None else usual


def forgotten(record: RunRecord) -> Iterator[Evidence]:
    """That held samples, which came first, are predicted worse at the end than all were in the last passes."""
    look, course = record.memo(evaluated), record.memo(loss_course)
    if look is None or course is None:
        return
    late = course.values[-max(1, round(LAST * len(course.values))) :]
    least = SURE * float(np.hypot(look.training_error, course.end_error))
    if look.training - late.mean() > least:
        note = f"{look.training:.3g} at the end, {late.mean():.3g} on all as they came in the last fifth of the run"
        yield Evidence("loss of the first samples over that of all", look.training - float(late.mean()), least,
                       step=look.step, note=note)  # fmt: skip


def of_processes(record: RunRecord) -> Iterator[Evidence]:
    """The process whose batches hold other classes than those of the others."""
    skew = record.memo(class_skew)
    if skew is not None:
        note = "distance of its shares of the classes from those of all processes: 0 where equal, 1 where all others"
        yield Evidence(
            "classes that one process sees more than its share", skew[1], where=f"process {skew[0]}", note=note
        )


def shuffling(known: TrainClasses, seen: BatchClasses, loader: dict[str, Any]) -> Iterator[Remedy]:
    """`shuffle` and `stratified-batches`, with what they bring."""
    gain = f"Batches of {seen.size} then hold {seen.by_chance:.1f} classes on average, in place of {seen.classes:.1f}."
    yield remedy(
        "shuffle",
        already_in_use=bool(loader.get("shuffled")),
        size=seen.size,
        gain=gain,
    )
    rare = int(np.where(known.counts > 0, known.counts, np.inf).argmin())
    share = float(known.counts[rare] / known.counts.sum())
    yield remedy(
        "stratified-batches",
        size=seen.size,
        rare=known.names[rare],
        absent=float(seen.expected[rare]),
        each=share * seen.size,
    )
