"""What speaks for more or for less dropout: the vote of sub-networks, and units that say the same (§6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord

SHOWN = 3
KINDS = {"val": "validation", "train": "training"}


@dataclass(frozen=True)
class Vote:
    """The mean prediction of several passes with dropout awake, against one pass without.

    Attributes:
        kind: ``val`` or ``train``: of which held batches.
        step: Optimiser steps taken before.
        alone: Loss of one pass in evaluation mode.
        vote: Of the mean prediction; `error` is the standard error of its difference from `alone`.
        single: Mean loss of a single one of the passes.
        passes, samples: How many.
    """

    kind: str
    step: int
    alone: float
    vote: float
    error: float
    single: float
    passes: int
    samples: int

    @property
    def gain(self) -> float:
        """By how much the vote is better."""
        return self.alone - self.vote


@dataclass(frozen=True)
class CoAdaptation:
    """Units that a module is given.

    Attributes:
        name: Of the module, which is a dropout where the net has any.
        step: Optimiser steps taken before.
        correlation: Mean absolute correlation between two units.
        units, samples: How many.
    """

    name: str
    step: int
    correlation: float
    units: int
    samples: int

    @property
    def chance(self) -> float:
        """What independent units would show: the mean absolute value of a normal variable of variance 1 / (n - 1)."""
        return math.sqrt(2 / (math.pi * max(1, self.samples - 1)))


def vote(record: RunRecord) -> Vote | None:
    """The last vote, for `RunRecord.memo`; None where there is no dropout, or the vote was not taken."""
    for key in record.keys("votes"):
        found = record.latest("votes", key)
        if found is not None and np.isfinite(found[1]).all():
            alone, taken, error, single, passes, samples = found[1].tolist()
            return Vote(key, found[0], alone, taken, error, single, round(passes), round(samples))
    return None


def co_adaptation(record: RunRecord) -> list[CoAdaptation]:
    """Each site with its hidden units, the most alike first, for `RunRecord.memo`."""
    found = []
    for key in record.keys("co_adaptation"):
        last = record.latest("co_adaptation", key)
        if last is not None and np.isfinite(last[1]).all():
            correlation, units, samples = last[1].tolist()
            found.append(CoAdaptation(key, last[0], correlation, round(units), round(samples)))
    return sorted(found, key=lambda one: -one.correlation)


def told(record: RunRecord) -> str:
    """Vote gain and co-adaptation in words, as remedies on dropout give them."""
    taken, alike = record.memo(vote), record.memo(co_adaptation)
    if taken is None:
        used = (record.facts.get("regularisation") or {}).get("dropout")
        first = "Vote gain: not measured." if used else "Vote gain: there is no dropout yet that could vote."
    else:
        first = (
            f"A vote of {taken.passes} passes with dropout awake has a {KINDS[taken.kind]} loss of {taken.vote:.3g}, "
            f"one pass without it {taken.alone:.3g} (gain {taken.gain:.2g} +- {taken.error:.1g})."
        )
    if not alike:
        return f"{first} Co-adaptation: not measured."
    named = ", ".join(f"{one.correlation:.2f} before '{one.name}'" for one in alike[:SHOWN])
    return (
        f"{first} Co-adaptation (mean absolute correlation of hidden units): {named}; {alike[0].chance:.2f} by chance."
    )
