"""Inputs, outputs and targets as a tool would see them in the first batch."""

from __future__ import annotations

from dataclasses import dataclass

from trainwatch.record import RunRecord


@dataclass(frozen=True)
class Seen:
    """Smallest, largest and mean entry of a tensor."""

    low: float
    high: float
    mean: float


def first_inputs(record: RunRecord) -> Seen | None:
    """The model's inputs in the first batch; None where they are no floating numbers."""
    return _first(record, "input_stats", "train")


def first_outputs(record: RunRecord) -> Seen | None:
    """What the loss was given in the first batch."""
    return _first(record, "output_stats", None)


def first_targets(record: RunRecord) -> Seen | None:
    """Floating targets of the first batch, or the range of the class numbers seen."""
    seen = _first(record, "target_stats", None)
    counts = record.series("train_classes", "targets")
    if seen is None and counts is not None and len(counts):
        classes = counts.history()[1].shape[1] - 1
        return Seen(0.0, float(classes - 1), (classes - 1) / 2)
    return seen


def _first(record: RunRecord, quantity: str, key: str | None) -> Seen | None:
    keys = record.keys(quantity)
    series = record.series(quantity, key or keys[0]) if keys else None
    if series is None or not len(series):
        return None
    low, high, mean = (float(v) for v in series.history()[1][0][:3])
    return Seen(low, high, mean)
