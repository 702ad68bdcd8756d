"""From a rule's margin to a probability, by curves that were fitted to the tuning half of the zoo."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trainwatch.diagnosis import Severity
from trainwatch.rules.calibrated import CURVES

FAR = 30.0  # standard errors; a margin beyond says no more


def squashed(margin: float) -> float:
    """A margin in standard errors on the scale of the curves: its logarithm, from 0 at the threshold to 3.4."""
    return 0.0 if math.isnan(margin) else math.log1p(min(max(margin, 0.0), FAR))


@dataclass(frozen=True)
class Curve:
    """Chance that diagnoses of one kind are right: a logistic curve of the margin, short of 1 by a lapse rate.

    Attributes:
        intercept: Log-odds at the threshold, of a rule of which nothing is known.
        slope: Log-odds per unit of the squashed margin; not negative.
        fact: Log-odds beside `intercept` where the margin is infinite: a fact, which needs no statistics.
        lapse: Chance that a diagnosis is wrong in a way that no family of the zoo shows, by its upper bound.
        codes: Log-odds beside `intercept` of each rule that the zoo shows, pooled towards 0.
    """

    intercept: float
    slope: float
    fact: float
    lapse: float
    codes: Mapping[str, float]

    def __call__(self, margin: float, code: str = "") -> float:
        """The probability for a margin of a rule."""
        beside = self.fact if margin == math.inf else self.slope * squashed(margin)
        return (1 - self.lapse) / (1 + math.exp(-(self.intercept + beside + self.codes.get(code, 0.0))))


FINDING, REMARK = Curve(**CURVES["finding"]), Curve(**CURVES["remark"])


def confidence_of(margin: float, code: str = "", severity: Severity = Severity.WARNING) -> float:
    """Probability that a diagnosis is right: that what it names is a fault of the run.

    Args:
        margin: (measured - threshold) / standard error; infinity for facts that need no statistics.
        code: The rule; one that the zoo does not know, as of another package, gets what all rules have in common.
        severity: Remarks have a curve of their own: they are made where harm is not sure.
    """
    return (FINDING if Severity(severity) >= Severity.WARNING else REMARK)(margin, code)
