"""What regularisation is to bring about: steady outputs, steady predictions, few inputs in use (§4, §8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.figures import Curve
from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import thin

LATE = 5  # passes


@dataclass(frozen=True)
class SmallChanges:
    """What moving the inputs of held batches by a small share of their spread did, in evaluation mode.

    Attributes:
        step: Optimiser steps taken before.
        size: Of the move, in standard deviations of each feature.
        loss: As it is.
        noisy: Under noise; `noisy_error` is the standard error of its change.
        against: After the step that raises the loss fastest; `against_error` is the standard error of its change.
        gain: Change of the output under noise, in its own standard deviations per one of the inputs.
        gain_against: The same after that step.
        samples: In the batches.
    """

    step: int
    size: float
    loss: float
    noisy: float
    noisy_error: float
    against: float
    against_error: float
    gain: float
    gain_against: float
    samples: float


@dataclass(frozen=True)
class Churn:
    """How many validation predictions are others than in the pass before.

    Attributes:
        stream: Of validation.
        step: Optimiser steps before the last pass.
        share: Mean over the last passes, and `passes`, their number.
    """

    stream: str
    step: int
    share: float
    passes: int


@dataclass(frozen=True)
class Importance:
    """How many of the inputs the loss hangs on.

    Attributes:
        inputs: Features.
        needed: Of these, those that make up nine tenths of what shuffling them one by one costs.
        alike: Median of the largest correlation that each of those has with another; NaN for a single one.
        samples: In the batches.
    """

    inputs: int
    needed: int
    alike: float
    samples: int

    @property
    def share(self) -> float:
        return self.needed / self.inputs


def small_changes(record: RunRecord) -> SmallChanges | None:
    """What small changes of the inputs did at the end, for `RunRecord.memo`; None where not tried, or not finite."""
    for key in record.keys("small_changes"):
        found = record.latest("small_changes", key)
        if found is not None and np.isfinite(found[1]).all():
            return SmallChanges(found[0], *found[1].tolist())
    return None


def importance(record: RunRecord) -> Importance | None:
    """How many inputs the loss hangs on, for `RunRecord.memo`; None where that was not tried."""
    for key in record.keys("input_importance"):
        found = record.latest("input_importance", key)
        if found is not None:
            inputs, needed, alike, samples = found[1].tolist()
            return Importance(round(inputs), round(needed), alike, round(samples))
    return None


def churn(record: RunRecord) -> Churn | None:
    """Churn of the primary stream over the last passes, for `RunRecord.memo`; None where no two can be compared."""
    streams = record.facts.get("validation", {})
    for key in sorted(record.keys("val_churn"), key=lambda name: not streams.get(name, {}).get("primary")):
        steps, rows = record.series("val_churn", key).history()  # type: ignore[union-attr]
        late = rows[-LATE:].astype(float)
        return Churn(key, int(steps[-1]), float(late.mean()), len(late))
    return None


def churn_figure(record: RunRecord) -> Curve | None:
    """Churn of each stream over the run; None where there is none."""
    lines = {key: thin(*record.series("val_churn", key).history()) for key in record.keys("val_churn")}  # type: ignore[union-attr]
    return (
        Curve(title="Predictions that change from pass to pass", y_label="share", lines=lines, marks={})
        if lines
        else None
    )
