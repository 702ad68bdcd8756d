"""How sharply the loss is curved for the steps of the optimiser in use, against what they can bear."""

from __future__ import annotations

from dataclasses import dataclass

from trainwatch.record import RunRecord


@dataclass(frozen=True)
class Sharpness:
    """The largest eigenvalue of rate times preconditioned Hessian: a number without unit.

    Attributes:
        step: Optimiser steps taken.
        value: The eigenvalue; the true one is hardly smaller.
        bound: An eigenvalue lies within so much of it.
        limit: Beyond it steps along the eigenvector grow, on a quadratic.
        products: Products with the Hessian that it took.
        rate: Highest learning rate there.
    """

    step: int
    value: float
    bound: float
    limit: float
    products: int
    rate: float

    @property
    def excess(self) -> float:
        """Value over limit: about 1 at the edge of stability."""
        return self.value / self.limit


def sharpness(record: RunRecord) -> Sharpness | None:
    """What was measured last, for `RunRecord.memo`; None where nothing was."""
    measured = record.latest("sharpness", "held")
    if measured is None:
        return None
    step, (value, bound, limit, products, rate) = measured[0], measured[1].tolist()
    return Sharpness(step, value, bound, limit, int(products), rate)
