"""The log that a user would have kept of a run, from its record."""

from __future__ import annotations

import numpy as np

from benchmarks.rivals.installed.adapter import Log
from benchmarks.rivals.rival import training_curve, validation_curve
from trainwatch.record import RunRecord
from trainwatch.record.series import Array


def log_of(record: RunRecord) -> Log:
    """Loss, gradient norm and rate by step, and the validation losses."""
    steps, losses = training_curve(record)
    if not len(steps):
        return Log()
    squares = np.zeros(len(steps))
    for key in record.keys("grad_norm"):
        squares += np.nansum(_held(record, "grad_norm", key, steps) ** 2, axis=1)
    rates = record.keys("lr")
    lr = _held(record, "lr", rates[0], steps) if rates else np.zeros(len(steps))
    passes, validation = validation_curve(record)
    last = np.maximum(np.searchsorted(steps, passes) - 1, 0)  # a pass after k updates belongs to step k - 1
    kept = dict(zip(last.tolist(), validation.tolist(), strict=True))
    return Log(losses.tolist(), np.sqrt(squares).tolist(), lr.tolist(), kept)


def _held(record: RunRecord, quantity: str, key: str, steps: Array) -> Array:
    """The latest row of a series at each step; its first before that."""
    series = record.series(quantity, key)
    assert series is not None
    at, values = series.history()
    return values.astype(float)[np.maximum(np.searchsorted(at, steps, side="right") - 1, 0)]
