"""Ranges of inputs, outputs and targets over the looks that a run took at them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord


@dataclass(frozen=True)
class Range:
    """Where the entries of a tensor lie: least and most of all looks, else medians over the looks.

    Attributes:
        least, most: Smallest and largest entry.
        mean, sd: Mean and standard deviation.
        low, high: 5 % and 95 % quantile.
        whole: Smallest share of whole numbers in any look.
        largest, median: Of inputs the root mean square of the largest and of the median feature; else NaN.
        absolute, huber: Of targets what their median costs as a guess, by absolute errors and by Huber's loss of
            width 1; else NaN.
        step: Optimiser step of the last look.
    """

    least: float
    most: float
    mean: float
    sd: float
    low: float
    high: float
    whole: float
    largest: float
    median: float
    absolute: float
    huber: float
    step: int

    @property
    def rms(self) -> float:
        """Root mean square of all entries."""
        return float(np.hypot(self.mean, self.sd))


def range_of(record: RunRecord, quantity: str, key: str) -> Range | None:
    """The range recorded under a quantity and key; None where there is none, or it is not finite.

    Args:
        record: The run.
        quantity: ``input_stats``, ``output_stats`` or ``target_stats``.
        key: ``train`` or ``val`` for inputs, else a stream of ``train_loss``.
    """
    series = record.series(quantity, key)
    if series is None or not len(series):
        return None
    steps, rows = series.history()
    middle = np.median(rows.astype(float), axis=0)
    further = middle[7:9] if rows.shape[1] > 8 else np.full(2, np.nan)
    features, guesses = (further if quantity.startswith(kind) else np.full(2, np.nan) for kind in ("input", "target"))
    if not np.isfinite(middle[:7]).all():
        return None
    return Range(
        least=float(rows[:, 0].min()),
        most=float(rows[:, 1].max()),
        mean=float(middle[2]),
        sd=float(middle[3]),
        low=float(middle[4]),
        high=float(middle[5]),
        whole=float(rows[:, 6].min()),
        largest=float(features[0]),
        median=float(features[1]),
        absolute=float(guesses[0]),
        huber=float(guesses[1]),
        step=int(steps[-1]),
    )


def looks_like_classes(targets: Range, most: int) -> bool:
    """Whether targets are numbers of at most so many classes: whole, from 0, spread as equally frequent ones are."""
    count = targets.most + 1
    if targets.whole < 1 or targets.least != 0 or not 2 < count <= most:
        return False
    even = float(np.sqrt((count**2 - 1) / 12))
    return abs(targets.sd / even - 1) < 0.15 and abs(2 * targets.mean / targets.most - 1) < 0.15
