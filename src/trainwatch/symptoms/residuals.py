"""How far outputs of a regression are from their targets, in three norms, and how heavy the tail is (§5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import passes, primary_stream


@dataclass(frozen=True)
class Residuals:
    """Output minus target over the entries of the last validation pass, in the unit that the loss is given.

    Attributes:
        stream: Of validation.
        step: Optimiser steps before it.
        mean: Mean absolute error: L1 norm over the number of entries.
        rms: Root mean square: L2 norm over the root of that number.
        largest: L-infinity norm.
        median: Median absolute error.
    """

    stream: str
    step: int
    mean: float
    rms: float
    largest: float
    median: float

    @property
    def tail(self) -> float:
        """Root mean square over mean absolute error: 1.25 for normal errors, 1.41 for those of Laplace."""
        return self.rms / self.mean

    @property
    def text(self) -> str:
        """The norms in one notation."""
        return (
            f"|r|1 / n = {self.mean:.3g}, |r|2 / root n = {self.rms:.3g}, |r|inf = {self.largest:.3g} "
            f"(median {self.median:.3g})"
        )


def residuals(record: RunRecord) -> Residuals | None:
    """Of the primary stream's last pass, for `RunRecord.memo`; None where it is no regression, or not finite."""
    stream = primary_stream(record) or ""
    steps, rows = passes(record, "val_error", stream)
    if not len(rows) or not np.isfinite(rows[-1]).all() or rows[-1][0] <= 0:
        return None
    mean, rms, largest, median = rows[-1].tolist()
    return Residuals(stream, int(steps[-1]), mean, rms, largest, median)
