"""The log that a user would have kept of a run, from its record."""

from __future__ import annotations

import numpy as np

from benchmarks.rivals.installed.adapter import Log
from benchmarks.rivals.rival import validation_curve
from trainwatch.record import RunRecord


def log_of(record: RunRecord) -> Log:
    """Loss, gradient norm and rate by step, and the validation losses; a step's batches are averaged."""
    keys = sorted(record.keys("train_loss"), key=lambda key: key == "root")
    series = record.series("train_loss", keys[0]) if keys else None
    if series is None or not len(series):
        return Log()
    at, losses = series.history()
    steps, place = np.unique(at, return_inverse=True)
    loss = np.bincount(place, losses.astype(float)) / np.bincount(place)
    squares = np.zeros(len(steps))
    for key in record.keys("grad_norm"):
        squares += _held(record, "grad_norm", key, steps, lambda norms: np.nansum(norms.astype(float) ** 2, axis=1))
    rates = record.keys("lr")
    lr = _held(record, "lr", rates[0], steps, lambda values: values.astype(float)) if rates else np.zeros(len(steps))
    passes, validation = validation_curve(record)
    index = np.searchsorted(steps, passes, side="left") - 1
    kept = {max(int(i), 0): float(v) for i, v in zip(index, validation, strict=True)}
    return Log(loss.tolist(), np.sqrt(squares).tolist(), lr.tolist(), kept)


def _held(record, quantity, key, steps, of):  # type: ignore[no-untyped-def]
    """The latest value of a series at each step; its first before that."""
    series = record.series(quantity, key)
    at, values = series.history()
    return of(values)[np.maximum(np.searchsorted(at, steps, side="right") - 1, 0)]
