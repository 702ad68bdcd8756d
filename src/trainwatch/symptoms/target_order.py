"""Whether the numbers that training batches are to predict come in an order: what a batch shows of their variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array

FEWEST = 8  # batches, or their means say little of how they differ
FULL = 0.75  # of the usual samples of a batch, for it to count
WHOLE = 0.9  # of the samples make a pass: a last batch may be dropped, and targets be missing
SORTED = 0.1  # of the variance that lies between batches: no shuffled draw comes there


@dataclass(frozen=True)
class TargetOrder:
    """How far the mean targets of training batches lie apart.

    Attributes:
        batches: How many were looked at: those at full resolution.
        size: Samples of a batch, the median.
        variance: Of all targets, within batches and between them.
        between: Share of the samples' variance that lies between batches, beyond what a shuffled draw leaves there: 0
            is chance, 1 is one and the same target in a batch.
        error: Its standard deviation by chance.
        first_step: Step of the first batch.
    """

    batches: int
    size: int
    variance: float
    between: float
    error: float
    first_step: int

    @property
    def is_sorted(self) -> bool:
        """Far more lies between batches than a shuffled draw leaves there."""
        return self.between > max(SORTED, 4 * self.error)


def target_order(record: RunRecord, stream: str) -> TargetOrder | None:
    """The order of the targets of a training loss; None where they were not seen, or lie in passes that are not known.

    Targets that drift, such as values that a policy is worth, are not in the order of any data: a pass over a loader
    must have ended, or the same batches have come again.
    """
    series = record.series("target_moments", stream)
    if series is None or len(series) < FEWEST:
        return None
    rows = series.values.astype(float)
    batches = _of_a_loader(record, rows) or _until_they_come_again(rows)
    rows = rows[rows[:, 4] >= FULL * np.median(rows[:, 4])]  # a last batch of few samples is far off by itself
    size, within = float(np.median(rows[:, 4])), float(rows[:, 3].mean())
    if batches < 2 or size < 2 or not np.isfinite(rows[:, [0, 1, 3]]).all():
        return None
    apart = _within_passes(rows[:, 0], batches)
    if within + apart <= 0:
        return None
    one = (within + apart) / size  # variance of the mean of a shuffled draw
    share = (apart - one) / (within + apart)
    error = float(np.sqrt(2 / (len(rows) - 1))) / size
    return TargetOrder(len(rows), round(size), float(rows[:, 1].mean()) + apart, share, error, int(series.steps[0]))


def _of_a_loader(record: RunRecord, rows: Array) -> int:
    """Batches of one pass over the loader; 0 where none is known to have ended."""
    samples = record.facts.get("run", {}).get("train_samples") or 0
    known = record.facts.get("loaders", {}).get("train") and 0 < WHOLE * samples <= rows[:, 4].sum()
    return max(2, round(samples / float(np.median(rows[:, 4])))) if known else 0


def _until_they_come_again(rows: Array) -> int:
    """Batches after which all come again in the same order; 0 where they do not."""
    rows = np.nan_to_num(rows)
    again = np.flatnonzero((rows[1:] == rows[0]).all(1)) + 1
    return next((int(n) for n in again if 2 * n <= len(rows) and (rows[n:] == rows[:-n]).all()), 0)


def _within_passes(means: Array, batches: int) -> float:
    """Variance of the means of the batches of a pass, the mean over the passes."""
    passes = max(1, len(means) // batches)
    return float(np.mean([part.var() for part in np.array_split(means, passes)]))
