"""From a rule's margin to a probability. One table, versioned, so that a report says which one it used."""

from __future__ import annotations

import math

VERSION = "0-prior"
PRIOR = 0.5  # chance that a diagnosis at its threshold is right: no calibration data yet, so even odds
SLOPE = 0.8  # log-odds per standard error beyond the threshold
CEILING = 0.99


def confidence_of(margin: float) -> float:
    """Probability that a diagnosis with this margin is right.

    Args:
        margin: (measured - threshold) / standard error; infinity for facts that need no statistics.

    Returns:
        A logistic curve of the margin through `PRIOR` at 0, capped at `CEILING`.
    """
    if math.isnan(margin):
        return PRIOR
    odds = math.log(PRIOR / (1 - PRIOR)) + SLOPE * max(-30.0, min(margin, 30.0))
    return min(CEILING, 1 / (1 + math.exp(-odds)))
