"""Outputs and targets that are broadcast against each other, for TW703."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.rules.output_remedies import same_shape

REGRESSION = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
Found = tuple[str, tuple[Remedy, ...], Evidence]


def broadcast_by_torch(known: dict[str, Any]) -> Found | None:
    """Of one of torch's losses, from the shapes that it was given."""
    ours, theirs = known["input_shape"], known["target_shape"]
    if known["function"] not in REGRESSION or not ours or not theirs:
        return None
    whole = int(np.prod(np.broadcast_shapes(tuple(ours), tuple(theirs))))
    return _found(ours, theirs, whole, int(max(np.prod(ours), np.prod(theirs))))


def broadcast_by_hand(record: RunRecord) -> Found | None:
    """Of a loss that the loop computes by itself, from the difference that it is made of."""
    known = record.facts.get("broadcast")
    if known is None:
        return None
    n, ours = known["outputs"][0], known["outputs"]
    return _found(ours, [n] if len(ours) > 1 else [n, 1], n * n, n)


def _found(ours: list[int], theirs: list[int], whole: int, most: int) -> Found | None:
    if whole <= most:
        return None
    what = f"outputs {tuple(ours)} and targets {tuple(theirs)} are broadcast: {whole // most} comparisons for one"
    return what, same_shape(ours, theirs), Evidence("entries compared", whole, most)
