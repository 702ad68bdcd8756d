"""What more samples would bring, and which prior knowledge a net is without: measures of the probes on §17."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array
from trainwatch.symptoms.curves import passes, primary_stream, validation_curve
from trainwatch.symptoms.losses import loss_course

EXPONENTS = 0.15, 1.0  # of power laws that are met with; three points alone do not tell it well
USUAL = 0.5  # where two points are all there is: errors fall as one over the root of the samples
TENTH = 0.1


@dataclass(frozen=True)
class LearningCurve:
    """Validation losses of a predictor that learned from a quarter, a half and all of some samples.

    Attributes:
        by: The predictor: ``forest``, or ``copies`` of the network, which do not learn from a quarter.
        samples: All of them.
        losses: By rising number of samples; the first is NaN where it is not known.
        error: Standard error of the second step.
        net: Loss of the net on the same samples.
        guess: Loss of a constant guess.
        scored: Validation samples.
        step: Optimiser steps taken before.
        floor: What is left to a perfect net.
    """

    by: str
    samples: int
    losses: tuple[float, float, float]
    error: float
    net: float
    guess: float
    scored: int
    step: int
    floor: float = 0.0

    @property
    def span(self) -> float:
        """What there is to learn below a constant guess."""
        return self.guess - self.floor

    @property
    def left(self) -> float:
        """What all samples leave of it."""
        return self.losses[2] - self.floor

    @property
    def ratio(self) -> float:
        """The second step over the first: 2^-c under loss = floor + b samples^-c, with c within `EXPONENTS`."""
        first, second = self.losses[0] - self.losses[1], self.losses[1] - self.losses[2]
        if np.isnan(first):
            return float(2.0**-USUAL)
        most, least = (2.0**-c for c in EXPONENTS)
        return float(np.clip(second / first, least, most)) if first > 0 else least

    @property
    def gain(self) -> float:
        """By how much twice the samples would lower the loss, by the power law through the three points."""
        return (self.losses[1] - self.losses[2]) * self.ratio

    @property
    def gain_error(self) -> float:
        """Standard error of `gain`."""
        return self.error * self.ratio

    @property
    def told(self) -> str:
        """The losses of more and more samples, in words."""
        parts = [(self.samples // part, loss) for part, loss in zip((4, 2, 1), self.losses, strict=True)]
        return ", ".join(f"{loss:.3g} with {count}" for count, loss in parts if not np.isnan(loss))

    def share_left(self, best: float) -> float:
        """Of `gain` and its error, what is to be expected of a net that leaves `best`, further along such a curve.

        Twice the samples take the same share off both losses where they fall by one power; a net that is worse than
        the predictor is granted no more than the predictor gains.
        """
        return float(np.clip(best / self.left, 0.0, 1.0)) if self.left > 0 else 1.0


def own_curve(record: RunRecord) -> LearningCurve | None:
    """Of copies of the network, for `RunRecord.memo`; None without one, or where no constant guess has a known loss."""
    row, course, forest = record.latest("own_curve", "held"), record.memo(loss_course), record.memo(learning_curve)
    curve = record.memo(validation_curve)
    guess, floor = (None, 0.0) if curve is None else (curve.chance, curve.floor)
    if forest is not None:
        guess = forest.guess
    elif guess is None and course is not None:
        guess, floor = course.chance, course.floor
    if row is None or guess is None or guess <= floor or not np.isfinite(row[1]).all():
        return None
    samples, half, whole, error, net, scored = row[1].tolist()
    losses = np.nan, half, whole
    return LearningCurve("copies", round(samples), losses, error, net, guess, round(scored), row[0], floor)


def learning_curve(record: RunRecord) -> LearningCurve | None:
    """The last one measured, for `RunRecord.memo`; None where there is none, or it is not finite."""
    row = record.latest("learning_curve", "forest")
    if row is None or not np.isfinite(row[1]).all():
        return None
    samples, quarter, half, whole, error, net, guess, scored = row[1].tolist()
    return LearningCurve("forest", round(samples), (quarter, half, whole), error, net, guess, round(scored), row[0])


def worst_tenth(record: RunRecord) -> float | None:
    """Share of the validation loss that a tenth of the columns makes up at the end; None where it is not known."""
    stream = primary_stream(record)
    rows = passes(record, "val_sample_loss", stream)[1] if stream else np.zeros((0, 0))
    if not len(rows):
        return None
    losses = np.sort(rows[-1][np.isfinite(rows[-1])])
    if len(losses) < 20 or losses.sum() <= 0 or losses[0] < 0:
        return None
    return float(losses[-max(1, round(TENTH * len(losses))) :].sum() / losses.sum())


def importances(record: RunRecord) -> Array | None:
    """By how much the loss rises where each feature is shuffled, shape (features,); None where it was not tried."""
    row = record.latest("feature_importance", "val")
    known = np.zeros(0) if row is None else row[1][np.isfinite(row[1])]
    return known if len(known) else None
