"""What differs between the processes of one run."""

from __future__ import annotations

import numpy as np

from trainwatch.record import RunRecord


def class_skew(record: RunRecord) -> tuple[int, float] | None:
    """The process whose training classes are furthest from those of all, and how far: total variation distance.

    0 where it sees the classes as often as all do, towards 1 where it sees others. None where one process trains.
    """
    counts = record.facts.get("processes", {}).get("classes", {}).get("targets")
    table = np.asarray(counts, float)[:, :-1] if counts else np.zeros((0, 1))
    table = table[table.sum(1) > 0] if len(table) and (table.sum(1) > 0).all() else table[:0]
    if len(table) < 2:
        return None
    distances = np.abs(table / table.sum(1, keepdims=True) - table.sum(0) / table.sum()).sum(1) / 2
    return int(distances.argmax()), float(distances.max())
