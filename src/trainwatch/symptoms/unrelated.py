"""Labels that do not follow from the inputs: what is learned is learned by heart, and a forest learns no more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.labels import chance_agreement, held_labels, kappa
from trainwatch.symptoms.losses import loss_course


@dataclass(frozen=True)
class Unrelated:
    """What training, validation and a forest make of the same labels.

    Attributes:
        agreement: Of labels and forest beyond what chance gives (Cohen's kappa), over the held training samples.
        agreement_error: Its standard error where there is none.
        samples: How many those are.
        elsewhere: As `agreement`, over the held validation samples.
        learned: Share of a constant guess's loss that is gone in training at the end.
        learned_error: Its standard error.
        carried: The most of it that was gone in a pass of validation; below 0 where all are worse than a guess.
        step: Optimiser steps taken before the forest was asked.
    """

    agreement: float
    agreement_error: float
    samples: int
    elsewhere: float
    learned: float
    learned_error: float
    carried: float
    step: int

    def margin(self, by_heart: float, carried: float, agreement: float) -> float:
        """By how many standard errors more is learned by heart, and labels and forest agree less; the smaller one.

        Below 0 where validation got rid of more than `carried`.
        """
        if self.carried > carried:
            return -np.inf
        told = (agreement - self.agreement) / self.agreement_error
        return min((self.learned - by_heart) / self.learned_error, told)


def unrelated(record: RunRecord) -> Unrelated | None:
    """For `RunRecord.memo`; None where there is no validation, no guess to hold it against, or no forest was asked.

    The standard error of a kappa near nothing is that of Cohen, "A coefficient of agreement for nominal scales" (1960).
    """
    tables, curve, course = held_labels(record), record.memo(validation_curve), record.memo(loss_course)
    kept = None if curve is None else curve.kept
    if len(tables) < 2 or kept is None or course is None or course.chance is None:
        return None
    given, predicted = tables["train"][1][:, 2:4].T
    chance = chance_agreement(given, predicted)
    error = float(np.sqrt(chance / (1 - chance) / len(given))) if chance < 1 else np.inf
    return Unrelated(
        agreement=kappa(given, predicted),
        agreement_error=error,
        samples=len(given),
        elsewhere=kappa(*tables["val"][1][:, 2:4].T),
        learned=course.gained,
        learned_error=course.gained_error,
        carried=float(1 - kept.min()),
        step=max(step for step, _ in tables.values()),
    )
