"""How far probabilities agree with what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.zoo.calibration import Case

BINS = 10
REPLICATES = 400


@dataclass(frozen=True)
class Bin:
    """Cases of about the same probability.

    Attributes:
        low, high: Least and largest probability.
        said: Mean probability.
        right: Share that is right.
        cases: How many.
    """

    low: float
    high: float
    said: float
    right: float
    cases: int


@dataclass(frozen=True)
class Reliability:
    """Agreement of probabilities with outcomes.

    Attributes:
        bins: From the least to the largest probability, with about as many cases each.
        error: Expected calibration error: mean distance of probability and share over the bins, by cases.
        low, high: 95 % interval of `error` from resampled families.
        debiased: Root of the squared error, less what chance alone makes of it (Kumar, Liang and Ma, 2019).
        brier: Mean squared distance of a probability from 0 or 1.
        said, right: Mean probability, and share that is right.
    """

    bins: tuple[Bin, ...]
    error: float
    low: float
    high: float
    debiased: float
    brier: float
    said: float
    right: float


def reliability(chances: Sequence[float] | np.ndarray, cases: Sequence[Case]) -> Reliability | None:
    """Compare the probabilities of cases with what came of them; None where there is no case."""
    if not cases:
        return None
    said, came = np.asarray(chances, float), np.array([c.right for c in cases], float)
    bins = _bins(said)
    table = [Bin(float(said[b].min()), float(said[b].max()), float(said[b].mean()), float(came[b].mean()), len(b))
             for b in bins]  # fmt: skip
    low, high = _interval(said, came, np.array([c.family for c in cases]))
    return Reliability(
        tuple(table),
        _error(said, came, bins),
        low,
        high,
        _debiased(table),
        float(((said - came) ** 2).mean()),
        float(said.mean()),
        float(came.mean()),
    )


def _bins(said: np.ndarray) -> list[np.ndarray]:
    """Places of the cases, parted at quantiles; equal probabilities stay together."""
    edges = np.unique(np.quantile(said, np.arange(1, BINS) / BINS))
    place = np.searchsorted(edges, said, side="left")
    return [np.flatnonzero(place == i) for i in np.unique(place)]


def _error(said: np.ndarray, came: np.ndarray, bins: Sequence[np.ndarray]) -> float:
    return float(sum(abs((said[b] - came[b]).sum()) for b in bins) / len(said))


def _debiased(bins: Sequence[Bin]) -> float:
    total = sum(b.cases for b in bins)
    squared = [
        b.cases / total * ((b.said - b.right) ** 2 - b.right * (1 - b.right) / (b.cases - 1))
        for b in bins
        if b.cases > 1
    ]
    return float(np.sqrt(max(sum(squared), 0.0)))


def _interval(said: np.ndarray, came: np.ndarray, families: np.ndarray) -> tuple[float, float]:
    members = [np.flatnonzero(families == name) for name in np.unique(families)]
    draws = np.random.default_rng(0).integers(0, len(members), (REPLICATES, len(members)))
    errors = []
    for draw in draws:
        some = np.concatenate([members[i] for i in draw])
        errors.append(_error(said[some], came[some], _bins(said[some])))
    low, high = np.quantile(errors, [0.025, 0.975])
    return float(low), float(high)
