"""AUTOTRAINER's monitor, at the default parameters of its demo.

Evaluated: vanish, explode, unstable, slow convergence, not converge, improper loss, and the gap between training and
test (which the tool computes but does not report). Accuracy is that of validation: the record has none of training.
Judged after 30 % of the passes, every third one, as the tool does.

Not evaluated: dying ReLU, improper data and improper activation, which read the entries of gradients and hidden
outputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.rivals.rival import NOT_LEARNING, Alarm, Rival, accuracy, gradients, training_loss, validation_curve
from trainwatch.record import RunRecord

RATIO_SMALL, FIRST_SMALL, RATIO_LARGE, LARGEST_LOSS = 1e-3, 1e-4, 70.0, 1e3
SWING, SWINGS = 0.03, 0.2
SMALLEST_GAIN, GOOD = 0.01, 0.7
AFTER, EVERY = 0.3, 3


def _looks(record: RunRecord, rows: int) -> np.ndarray:
    """Rows of the gradients at every third pass, after the first 30 %."""
    steps, _ = validation_curve(record)
    at = steps[EVERY - 1 :: EVERY].astype(int) - 1 if len(steps) else np.arange(9, rows, 10)
    return at[(at >= AFTER * rows) & (at < rows) & (at >= 0)]


def explode(record: RunRecord) -> Iterator[Alarm]:
    """First over last gradient above 70, a value that is not finite, or a loss above 1,000."""
    norms, _ = gradients(record)
    losses = training_loss(record)
    rows = norms[_looks(record, len(norms))] if len(norms) else norms
    with np.errstate(all="ignore"):
        large = rows.shape[1:] and rows.shape[1] > 1 and (rows[:, 0] / rows[:, -1] > RATIO_LARGE).any()
    if large or np.isinf(norms).any() or (losses >= LARGEST_LOSS).any():
        yield Alarm("explode", frozenset({"TW302", "TW303", "TW601", "TW107", "TW108", "TW309", "TW704"}))


def vanish(record: RunRecord) -> Iterator[Alarm]:
    """First over last gradient below 1e-3 and the first below 1e-4, in a net that has not converged."""
    norms, _ = gradients(record)
    rows = norms[_looks(record, len(norms))] if len(norms) else norms
    right = accuracy(record)
    if not len(rows) or rows.shape[1] < 2 or (len(right) and right.max() >= GOOD):
        return
    with np.errstate(all="ignore"):
        small = (rows[:, 0] / rows[:, -1] < RATIO_SMALL) & (rows[:, 0] < FIRST_SMALL)
    if small.any():
        yield Alarm("vanish", frozenset({"TW301", "TW309"}))


def improper_loss(record: RunRecord) -> Iterator[Alarm]:
    """A loss over classes on a single output, or a binary one on several."""
    for known in record.facts.get("loss", {}).values():
        name, classes = str(known.get("function")), known.get("classes")
        if (name == "cross_entropy" and classes == 1) or ("binary" in name and (classes or 1) > 2):
            yield Alarm("improper loss", frozenset({"TW703"}))
            return


def unstable(record: RunRecord) -> Iterator[Alarm]:
    """Accuracy swings by 0.03 between neighbouring extremes in a fifth of the passes."""
    right = accuracy(record)
    if len(right) < 3:
        return
    turns = np.flatnonzero(np.diff(np.sign(np.diff(right)))) + 1
    extremes = right[turns]
    if len(extremes) > 1 and (np.abs(np.diff(extremes)) >= SWING).sum() >= SWINGS * len(right):
        yield Alarm("unstable", frozenset({"TW601", "TW603", "TW604", "TW704"}))


def not_converge(record: RunRecord) -> Iterator[Alarm]:
    """No pass reaches an accuracy of 0.7."""
    right = accuracy(record)
    if len(right) and right[int(AFTER * len(right)) :].max() < GOOD:
        yield Alarm("not_converge", NOT_LEARNING | {"TW205", "TW102", "TW101"})


def slow_convergence(record: RunRecord) -> Iterator[Alarm]:
    """No pass gains 0.01 of accuracy over the one before."""
    right = accuracy(record)
    if len(right) > 2 and np.diff(right).max() < SMALLEST_GAIN:
        yield Alarm("slow", frozenset({"TW602", "TW204", "TW205", "TW301"}))


RIVAL = Rival(
    "AUTOTRAINER",
    "Zhang et al., AUTOTRAINER (ICSE 2021); shiningrain/AUTOTRAINER at 03a463e, utils/monitor.py",
    (improper_loss, explode, vanish, unstable, slow_convergence, not_converge),
)
