"""What the shapes of outputs and targets tell of a loss, for TW703."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.output_remedies import classify, same_shape

REGRESSION = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
OVER_CLASSES = ("cross_entropy", "nll_loss")
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
    ours, n = known["outputs"], known["outputs"][0]
    return _found(ours, [n] if len(ours) > 1 else [n, 1], int(np.prod(known["compared"])), n)


def one_unit(record: RunRecord, stream: str, known: dict[str, Any]) -> Found | None:
    """A softmax, or a cross-entropy, over a single unit."""
    shape = known["input_shape"] or []
    over_one = len(shape) > 1 and shape[1] == 1 and known["function"] in OVER_CLASSES
    if not over_one and (known["last_operation"] != "Softmax" or not shape or shape[-1] != 1):
        return None
    what = "a softmax over one unit is 1 whatever the input: the loss teaches nothing"
    return what, classify(record, stream), Evidence("units of the last layer", 1.0)


def over_samples(known: dict[str, Any]) -> Found | None:
    """A log-softmax over the samples of the batch in place of the classes."""
    shape = known["input_shape"] or []
    if known["function"] not in OVER_CLASSES or known.get("normalised") != 0 or len(shape) < 2:
        return None
    what = f"the log-softmax at the end runs over the {shape[0]} samples of a batch, not over the classes of each"
    evidence = Evidence("dimension of the log-softmax", 0.0, note="classes lie in dimension 1")
    return what, (remedy("softmax-over-classes", samples=shape[0]),), evidence


def _found(ours: list[int], theirs: list[int], whole: int, most: int) -> Found | None:
    if whole <= most:
        return None
    what = f"outputs {tuple(ours)} and targets {tuple(theirs)} are broadcast: {whole // most} comparisons for one"
    return what, same_shape(ours, theirs), Evidence("entries compared", whole, most)
