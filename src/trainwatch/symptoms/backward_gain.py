"""The factor of a layer on a gradient's way back, split into the part of its weight and that of what lies between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord

FEWEST = 2  # layers of which both parts are known


@dataclass(frozen=True)
class BackwardGain:
    """Typical factors, from the first probe of them.

    Attributes:
        weight: Through a weight: root mean square of the gradient at its input over that at its output.
        between: Through what lies between two weights: activation, norm.
        layers: How many of each are known, the fewer of the two.
        step: Optimiser steps before the probe.
    """

    weight: float
    between: float
    layers: int
    step: int


def backward_gain(record: RunRecord) -> BackwardGain | None:
    """Geometric means over the layers; None where too few are known, for `RunRecord.memo`."""
    names = record.facts.get("backward_gain", {}).get("modules", ())
    series = [s for name in names if (s := record.series("backward_gain", name)) is not None and len(s)]
    if not series:
        return None
    first = [s.history() for s in series]
    rows = np.array([values[0] for _, values in first], float)
    known = np.isfinite(rows) & (rows > 0)
    if (known.sum(0) < FEWEST).any():
        return None
    weight, between = (float(np.exp(np.log(column[some]).mean())) for column, some in zip(rows.T, known.T, strict=True))
    return BackwardGain(weight, between, int(known.sum(0).min()), int(first[0][0][0]))
