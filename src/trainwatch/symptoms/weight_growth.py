"""How weights grow over a run: their norms against those at the start, and whether they still do (§5, §14)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array
from trainwatch.symptoms.norms import norms_of

LATE = 0.5  # of the steps: whether weights still grow
FEWEST = 4  # rows
ZEROS = 3  # column of `weights`


@dataclass(frozen=True)
class Norms:
    """Norms of one weight tensor, from the entries that are looked at; the largest entry is at least that.

    Attributes:
        name: Of the parameter.
        step: Optimiser steps before them.
        l1, l2, largest: Sum of absolute values, root of the sum of squares, largest absolute value.
        zeros: Share of exact zeros; entries less these are the L0 norm.
        growth: L2 norm over that at the start.
    """

    name: str
    step: int
    l1: float
    l2: float
    largest: float
    zeros: float
    growth: float


@dataclass(frozen=True)
class WeightGrowth:
    """The weights of two dimensions or more, taken together.

    Attributes:
        steps: Of the rows.
        size: Root mean square of all entries at those steps.
        start: At the start.
        rate: Slope of its logarithm over the logarithm of steps in the second half of the run, and `error`, its
            standard error: 0.5 as a random walk, 1 in a straight line, next to 0 where weights have settled.
        tensors: Norms at the end, that which grew most first.
    """

    steps: Array = field(repr=False)
    size: Array = field(repr=False)
    start: float
    rate: float
    error: float
    tensors: tuple[Norms, ...]

    @property
    def factor(self) -> float:
        """Size at the end over that at the start."""
        return float(self.size[-1] / self.start)


def weight_growth(record: RunRecord) -> WeightGrowth | None:
    """How the weights of the only optimiser grew, for `RunRecord.memo`; None where that was not followed."""
    keys = record.keys("weights")
    series = record.series("weights", keys[0]) if len(keys) == 1 else None
    if series is None or not len(series):
        return None
    steps, rows = series.history()
    columns = record.facts["optimizers"][keys[0]]["parameters"]
    known = [(i, record.facts["parameters"][place]) for i, place in enumerate(columns)]
    some = [(i, p) for i, p in known if len(p["shape"]) > 1 and p.get("norm") and np.isfinite(rows[:, i, 1]).all()]
    late = steps >= LATE * steps[-1]
    if not some or late.sum() < FEWEST:
        return None
    numel = np.array([p["numel"] for _, p in some], float)
    squares = rows[:, [i for i, _ in some], 1].astype(float) ** 2 * numel
    size = np.sqrt(squares.sum(1) / numel.sum())
    start = float(np.sqrt(sum(float(p["norm"]) ** 2 for _, p in some) / numel.sum()))
    if not (size > 0).all():
        return None
    rate, error = _slope(np.log(steps[late]), np.log(size[late]))
    tensors = []
    for i, p in some:
        _, l1, l2, largest = norms_of(rows[-1, i], p["numel"]).tolist()
        tensors.append(
            Norms(str(p["name"]), int(steps[-1]), l1, l2, largest, float(rows[-1, i, ZEROS]), l2 / p["norm"])
        )
    return WeightGrowth(steps, size, start, rate, error, tuple(sorted(tensors, key=lambda one: -one.growth)))


def _slope(x: Array, y: Array) -> tuple[float, float]:
    """Of a straight line by least squares, and its standard error."""
    away = x - x.mean()
    spread = float((away**2).sum())
    slope = float((away * y).sum()) / spread
    left = y - y.mean() - slope * away
    return slope, float(np.sqrt((left**2).sum() / max(1, len(x) - 2) / spread))
