"""What the saddle probe found: curvature along a direction, the loss along it, and what the gradient promises."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainwatch.record import RunRecord

NOTED = 0.01  # share of a direction from which on a parameter is named


@dataclass(frozen=True)
class Escape:
    """The loss along the direction, on batches that it was not taken from.

    Attributes:
        lengths: Along the unit vector, from 0 on, shape (n,).
        losses: Mean loss at each, shape (n,).
        errors: Standard error of its change from length 0, shape (n,).
        even: Change of the loss as a mean over both sides, which a slope has no part in, shape (n,).
        even_errors: Its standard error, shape (n,).
        best: Place of the length at which the loss of the other batches, which the direction was taken from, is lowest.
    """

    lengths: NDArray[np.float64] = field(repr=False)
    losses: NDArray[np.float64] = field(repr=False)
    errors: NDArray[np.float64] = field(repr=False)
    even: NDArray[np.float64] = field(repr=False)
    even_errors: NDArray[np.float64] = field(repr=False)
    best: int

    @property
    def length(self) -> float:
        """The step that is proposed along the direction."""
        return float(self.lengths[self.best])

    @property
    def drop(self) -> float:
        """By how much it lowers the loss."""
        return float(self.losses[0] - self.losses[self.best])

    @property
    def drop_error(self) -> float:
        """Standard error of `drop`."""
        return float(self.errors[self.best])

    def sizes_below(self, errors: float) -> int:
        """Lengths at which the even part is below zero by so many standard errors."""
        return int((self.even[1:] < -errors * self.even_errors[1:]).sum())


@dataclass(frozen=True)
class Curvature:
    """Curvature at a point of the run, in evaluation mode.

    Attributes:
        step: Optimiser steps taken.
        largest: Largest eigenvalue of the Hessian on some batches (A).
        largest_bound: An eigenvalue lies within so much of it.
        smallest: The most negative curvature that was found there, in the direction that is tried.
        smallest_bound: An eigenvalue lies within so much of it.
        products: Products of the Hessian with a vector that it took.
        along: Curvature along that direction on other batches (B).
        along_error: Its standard error.
        slope_squared: Squared norm of the gradient, without the noise of batches.
        slope_error: Its standard error.
        batches: Of B.
        weights: Norm of the parameters.
        escape: The loss along the direction; None where B has no negative curvature there.
    """

    step: int
    largest: float
    largest_bound: float
    smallest: float
    smallest_bound: float
    products: int
    along: float
    along_error: float
    slope_squared: float
    slope_error: float
    batches: int
    weights: float
    escape: Escape | None

    def along_below(self, probability: float) -> float:
        """Upper bound of the curvature along the direction, one-sided, by Student's t."""
        return self.along + self.quantile(probability) * self.along_error

    def quantile(self, probability: float) -> float:
        """Of Student's t for means over B."""
        from scipy.special import stdtrit  # here, since most looks never need it

        return float(stdtrit(self.batches - 1, probability))

    @property
    def gradient_gain(self) -> float:
        """What a step along the gradient gains that is as long as the largest curvature allows (1 / `largest`)."""
        return self.gradient_gain_above(0.0)

    def gradient_gain_above(self, errors: float) -> float:
        """The same with a gradient shorter by so many standard errors: more than that is hardly noise."""
        squared = self.slope_squared - errors * self.slope_error if errors else self.slope_squared
        return max(squared, 0.0) / (2 * self.largest) if self.largest > 0 else np.inf


def curvature(record: RunRecord) -> Curvature | None:
    """What was measured last, for `RunRecord.memo`; None where nothing was."""
    measured = record.latest("hessian", "held")
    if measured is None:
        return None
    step, row = measured[0], measured[1].tolist()
    largest, largest_bound, smallest, smallest_bound, products, along, error, slope, slope_error, batches, weights = row
    return Curvature(
        step=step,
        largest=largest,
        largest_bound=largest_bound,
        smallest=smallest,
        smallest_bound=smallest_bound,
        products=int(products),
        along=along,
        along_error=error,
        slope_squared=slope,
        slope_error=slope_error,
        batches=int(batches),
        weights=weights,
        escape=_escape(record, step) if along < 0 else None,  # an older line may be of the same step
    )


def _escape(record: RunRecord, step: int) -> Escape | None:
    measured = record.latest("saddle_line", "held")
    if measured is None or measured[0] != step:
        return None
    rows = measured[1]
    lengths, others, losses, errors, even, even_errors = rows[np.isfinite(rows[:, 0])].T
    return Escape(lengths, losses, errors, even, even_errors, int(np.argmin(others)))


def shares_of(record: RunRecord) -> list[tuple[str, float]]:
    """Parameters by their share in the squared length of the direction, the largest first; those of note alone."""
    measured = record.latest("saddle_direction", "held")
    names = [p["name"] for p in record.facts.get("parameters", ())]
    known = [] if measured is None else zip(names, measured[1].tolist(), strict=True)
    return sorted(((name, share) for name, share in known if share >= NOTED), key=lambda item: -item[1])


def decay_of(record: RunRecord) -> float:
    """Curvature that weight decay adds to the loss, where it is part of the gradient."""
    groups = [g for optimizer in record.facts.get("optimizers", {}).values() for g in optimizer["groups"]]
    return max(
        (float(g.get("weight_decay") or 0.0) for g in groups if not g.get("decoupled_weight_decay")), default=0.0
    )
