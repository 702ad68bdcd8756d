"""Whether the loss swings to and fro: its correlation with itself some steps later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array
from trainwatch.symptoms.losses import MAD_TO_SD, loss_course

HALF = 0.5  # of the run, its end: swings at the start may die out
MOST = 2048  # losses of it that are looked at
LAGS = 24  # steps of half a swing, at most
FEWEST = 32
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
    at = np.arange(len(values)) / (len(values) - 1)
    slope, level = np.polyfit(at, values, 1)
    about = values - slope * at - level
    size = MAD_TO_SD * float(np.median(np.abs(about - np.median(about))))
    shuffled = record.facts.get("loaders", {}).get("train", {}).get("shuffled")
    lags = 1 if shuffled is False else min(LAGS, len(values) // 4)
    correlation = _autocorrelation(np.clip(about, -WILD * size, WILD * size), lags)
    lag = int(correlation.argmin())
    return Swing(course.stream, float(correlation[lag]), lag + 1, len(values) ** -0.5, size, -float(slope))


def _autocorrelation(values: Array, lags: int) -> Array:
    values = values - values.mean()
    whole = max(float(values @ values), 1e-300)
    return np.array([float(values[k:] @ values[:-k]) / whole for k in range(1, lags + 1)])
