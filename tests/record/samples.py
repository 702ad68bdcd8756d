"""Random records and their comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainwatch.record import RunRecord, SegmentWriter

SHAPES = {"train_loss": (), "grad_norm": (7,), "val_confusion": (3, 3)}


def as_data(record: RunRecord) -> dict[str, Any]:
    """All of a record in a form that ``==`` compares: two equal records are equal bit by bit, in the same order."""
    series = {}
    for quantity, key, s in record.items():
        meta, arrays = s.state()
        series[quantity, key] = (str(meta), [(a.dtype.str, a.shape, a.tobytes()) for a in arrays])
    return {
        "series": list(series.items()),
        "facts": [(topic, repr(value)) for topic, value in record.facts.items()],
        "faults": repr(record.faults),
        "transitions": repr(record.transitions),
        "dropped": record.dropped,
    }


def add_something(record: RunRecord, rng: np.random.Generator, step: int) -> int:
    """Make one random addition at a step; the next step."""
    kind = rng.integers(10)
    if kind == 0:
        record.set_fact(str(rng.choice(["run", "task", "loss"])), {"steps": step, "noise": float(rng.normal())})
    elif kind == 1:
        record.add_fault({"part": "capture", "error": "é" * int(rng.integers(5)), "step": step})
    elif kind == 2:
        record.add_transition({"code": "TW301", "where": ["a", "b"], "state": "reported", "step": step})
    else:
        quantity = str(rng.choice(list(SHAPES)))
        rows = int(rng.integers(1, 60))
        values = rng.normal(size=(rows, *SHAPES[quantity])).astype(np.float32)
        values[rng.random(values.shape) < 0.05] = np.nan
        values[rng.random(values.shape) < 0.01] = np.inf
        unscaled = {"unscaled": bool(rng.integers(2))} if rng.integers(2) else None
        record.append(quantity, str(rng.choice(["default", "other"])), np.arange(step, step + rows), values, unscaled)
        step += rows
    return step


def write_run(writer: SegmentWriter, additions: int, seed: int = 0, flush_every: int = 3) -> RunRecord:
    """A random run into a writer, flushed now and then and at the end; not closed."""
    rng, record, step = np.random.default_rng(seed), RunRecord(writer), 0
    for i in range(additions):
        step = add_something(record, rng, step)
        if i % flush_every == 0:
            writer.flush()
    writer.flush()
    return record
