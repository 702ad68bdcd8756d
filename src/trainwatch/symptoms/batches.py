"""How many classes a training batch holds, beside what a draw without looking would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.classes import TrainClasses, train_classes
from trainwatch.symptoms.curves import Array


@dataclass(frozen=True)
class BatchClasses:
    """The classes of the training batches that were looked at.

    Attributes:
        batches: How many there were.
        size: Their usual number of samples.
        absent: Share of the batches in which each class does not occur, shape (K,).
        expected: The same by chance: a batch is drawn without replacement from the samples of an epoch.
        error: Standard deviation of the mean number of classes in a batch, by chance.
        first_step: Step of the first count.
    """

    batches: int
    size: int
    absent: Array
    expected: Array
    error: float
    first_step: int

    @property
    def classes(self) -> float:
        """Mean number of classes in a batch."""
        return float((1 - self.absent).sum())

    @property
    def by_chance(self) -> float:
        """The same by chance."""
        return float((1 - self.expected).sum())

    @property
    def shortfall(self) -> float:
        """What batches lack on the way from one class to as many as chance gives: 0 is chance, 1 is one class."""
        return (self.by_chance - self.classes) / (self.by_chance - 1)

    @property
    def shortfall_error(self) -> float:
        return self.error / (self.by_chance - 1)


def batch_classes(record: RunRecord) -> BatchClasses | None:
    """The classes of the training batches, for `RunRecord.memo`; None where none were looked at."""
    known = record.memo(train_classes)
    if known is None:
        return None
    counts: dict[int, Array] = {}
    steps = []
    for key in record.keys("batches_without_class"):
        series = record.series("batches_without_class", key)
        if series is not None and len(series) and series.shape == (len(known.counts) + 1,):
            steps.append(int(series.history()[0][0]))
            counts[int(key)] = _total(series.history()[1])
    if not counts:
        return None
    number = sum(row[-1] for row in counts.values())
    absent = sum(row[:-1] for row in counts.values()) / number
    chances = {size: absent_by_chance(known, size) for size in counts}
    expected = sum(counts[size][-1] * p for size, p in chances.items()) / number
    # Within an epoch batches share out the same samples, which makes chance vary less than independent draws do.
    variance = sum(counts[size][-1] * (p * (1 - p)).sum() for size, p in chances.items())
    usual = max(counts, key=lambda size: counts[size][-1])
    return BatchClasses(int(number), usual, absent, expected, float(np.sqrt(variance)) / number, min(steps))


def absent_by_chance(known: TrainClasses, size: int) -> Array:
    """Chance that a batch of `size` samples holds none of a class, shape (K,).

    Hypergeometric where the samples of an epoch are known; else as if there were no end of them.
    """
    whole = known.counts.sum()
    if not known.per_epoch:
        return np.asarray((1 - known.counts / whole) ** size)
    from scipy.special import gammaln  # here, since most looks never need it

    others = whole - known.counts
    enough = others >= size

    def ways(samples: Array) -> Array:
        return np.asarray(gammaln(samples + 1) - gammaln(samples - size + 1))

    return np.where(enough, np.exp(ways(np.where(enough, others, size)) - ways(np.maximum(whole, size))), 0.0)


def _total(rows: Array) -> Array:
    return np.asarray(np.nansum(rows.astype(float), axis=0))
