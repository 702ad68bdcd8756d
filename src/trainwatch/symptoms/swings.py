"""Whether the loss swings to and fro: its correlation with itself some steps later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array
from trainwatch.symptoms.losses import loss_course

HALF = 0.5  # of the run, its end: swings at the start may die out
MOST = 2048  # losses of it that are looked at
LAGS = 24  # steps of half a swing, at most
FEWEST = 32
QUARTILES = 1.349  # standard deviations between the quartiles of a normal distribution
WILD = 4.0  # deviations at which single losses are cut: a spike must not hide a swing


@dataclass(frozen=True)
class Swing:
    """How the loss swings about its course in the second half of a run.

    Attributes:
        stream: Stream of ``train_loss``.
        correlation: Lowest autocorrelation of the loss about a straight line, over lags of 1 to 24 steps.
        lag: Steps at which it is lowest: half a swing.
        error: Standard error of the correlation of independent losses.
        size: Standard deviation about the line.
        fall: Fall of the line from the middle of the run to its end.
    """

    stream: str
    correlation: float
    lag: int
    error: float
    size: float
    fall: float


def swing_of(record: RunRecord) -> Swing | None:
    """The swing of the loss that is trained on; None where its second half has too few losses, or infinite ones.

    Batches in a fixed order make a loss that repeats itself every epoch: then only neighbours are compared.
    """
    course = record.memo(loss_course)
    series = record.series("train_loss", course.stream) if course is not None else None
    if course is None or series is None:
        return None
    half = int(np.searchsorted(series.steps, course.steps[0] + HALF * (course.steps[-1] - course.steps[0])))
    values = series.values[max(half, len(series.values) - MOST) :].astype(float)
    values = values[~np.isnan(values)]
    if len(values) < FEWEST or not np.isfinite(values).all():
        return None
    middle, size = np.median(values), _size(values)
    values = np.clip(values, middle - WILD * size, middle + WILD * size)
    at = np.arange(len(values)) / (len(values) - 1)
    slope, level = np.polyfit(at, values, 1)
    about = values - slope * at - level
    shuffled = record.facts.get("loaders", {}).get("train", {}).get("shuffled")
    correlation = _autocorrelation(about, 1 if shuffled is False else min(LAGS, len(values) // 4))
    error = len(values) ** -0.5
    lag = int((correlation < correlation.min() + error).argmax())  # the first of those that are as good as lowest
    return Swing(
        course.stream, float(correlation[lag]), lag + 1, error, max(_size(about), float(about.std())), -float(slope)
    )


def _size(values: Array) -> float:
    """Standard deviation, of a normal distribution, from the quartiles; where those coincide, as it is."""
    low, high = np.quantile(values, [0.25, 0.75])
    return float((high - low) / QUARTILES or values.std())


def _autocorrelation(values: Array, lags: int) -> Array:
    values = values - values.mean()
    whole = max(float(values @ values), 1e-300)
    return np.array([float(values[k:] @ values[:-k]) / whole for k in range(1, lags + 1)])
