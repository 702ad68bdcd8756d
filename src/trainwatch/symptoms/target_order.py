"""Whether the numbers that training batches are to predict come in an order: what a batch shows of their variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array

FEWEST = 8  # batches, or their means say little of how they differ
FULL = 0.75  # of the usual samples of a batch, for it to count
WHOLE = 0.9  # of the samples make a pass: a last batch may be dropped, and targets be missing
ROUNDING = 1e-10  # of the squared targets: what constants vary by in single precision
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
        climbs: Their mean targets rise, or fall, from each batch to the next, but where a pass begins: the data are
            sorted by what is to be predicted.
        first_step: Step of the first batch.
    """

    batches: int
    size: int
    variance: float
    between: float
    error: float
    climbs: bool
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
    passes = _of_a_loader(record, rows) or _until_they_come_again(rows)
    rows = rows[rows[:, 4] >= FULL * np.median(rows[:, 4])]  # a last batch of few samples is far off by itself
    size, within = float(np.median(rows[:, 4])), float(rows[:, 3].mean())
    if not passes or size < 2 or not np.isfinite(rows[:, [0, 1, 3]]).all():
        return None
    apart = float(np.mean([part.var() for part in np.array_split(rows[:, 0], passes)]))
    if within + apart <= ROUNDING * float((rows[:, 0] ** 2).mean()):
        return None
    one = (within + apart) / size  # variance of the mean of a shuffled draw
    way = np.diff(rows[:, 0])
    return TargetOrder(
        batches=len(rows),
        size=round(size),
        variance=float(rows[:, 1].mean()) + apart,
        between=(apart - one) / (within + apart),
        error=float(np.sqrt(2 / (len(rows) - 1))) / size,
        climbs=bool(min((way < 0).sum(), (way > 0).sum()) <= passes and 3 * passes < len(rows)),
        first_step=int(series.steps[0]),
    )


def _of_a_loader(record: RunRecord, rows: Array) -> int:
    """Passes over the loader; 0 where none is known to have ended."""
    samples, seen = record.facts.get("run", {}).get("train_samples") or 0, float(rows[:, 4].sum())
    known = record.facts.get("loaders", {}).get("train") and 0 < WHOLE * samples <= seen
    return max(1, round(seen / samples)) if known else 0


def _until_they_come_again(rows: Array) -> int:
    """How often all batches come in the same order; 0 where they do not."""
    rows = np.nan_to_num(rows)
    again = np.flatnonzero((rows[1:] == rows[0]).all(1)) + 1
    period = next((int(n) for n in again if 2 * n <= len(rows) and (rows[n:] == rows[:-n]).all()), 0)
    return len(rows) // period if period else 0
