"""Whether validation inputs or targets are on another scale than those of training: ranges side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import passes, primary_stream
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.ranges import Range, range_of
from trainwatch.symptoms.subject import is_of_data

CHANCE = 1e-3  # few samples of a heavy tail reach far further or less far, now and then
QUARTER = 0.25  # of the training batches, which may be small, reach further, or less far


@dataclass(frozen=True)
class Scaled:
    """Validation inputs beside training inputs.

    Attributes:
        ratio: How many times nine in ten entries of either reach, or are spread, further: 1 or more.
        seen: Of validation.
        usual: Of training.
        losses: Of validation and of training at the end; None of data alone.
    """

    ratio: float
    seen: Range
    usual: Range
    losses: tuple[float, float] | None = None


def scaled_otherwise(record: RunRecord) -> Scaled | None:
    """The scales of validation and training inputs, for `RunRecord.memo`; None where they are not known.

    Of a run also None where its validation loss is not above that of training: then the scale does no harm.
    """
    usual, seen = (range_of(record, "input_stats", split) for split in ("train", "val"))
    if usual is None or seen is None:
        return None
    if is_of_data(record):
        return Scaled(times_wider(record, "inputs", usual, seen), seen, usual)
    _, losses = passes(record, "val_loss", primary_stream(record) or "")
    course = record.memo(loss_course)
    if not len(losses) or course is None or losses[-1] <= course.end:
        return None
    return Scaled(_beside_batches(record, seen), seen, usual, (float(losses[-1]), course.end))


def times_wider(record: RunRecord, what: str, first: Range, second: Range) -> float:
    """How many times nine in ten entries reach, or are spread, further in one part of a data set than in the other.

    1 as well where chance alone makes samples so different in size.
    """
    if record.facts.get("scale_chance", {}).get(what, 1.0) > CHANCE:
        return 1.0
    reach = sorted(float(furthest(r.low, r.high)) for r in (first, second))
    spread = sorted(r.high - r.low for r in (first, second))
    return max(1.0, *(most / max(least, 1e-30) for least, most in (reach, spread)))


def furthest(low: Any, high: Any) -> Any:
    """How far nine in ten entries lie from zero."""
    return np.maximum(np.abs(low), np.abs(high))


def _beside_batches(record: RunRecord, seen: Range) -> float:
    """As `times_wider`, beside most of the training batches that were looked at."""
    series = record.series("input_stats", "train")
    assert series is not None
    low, high = series.history()[1][:, 4:6].astype(float).T
    ratio = 1.0
    for now, past in ((furthest(seen.low, seen.high), furthest(low, high)), (seen.high - seen.low, high - low)):
        least, most = np.quantile(past, [QUARTER, 1 - QUARTER])
        ratio = max(ratio, float(now / max(most, 1e-30)), float(least / max(now, 1e-30)))
    return ratio
