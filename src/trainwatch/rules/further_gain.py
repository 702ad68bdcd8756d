"""What further steps would gain, for TW205: by how the loss falls, by the last passes, by a copy that went on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import MODEST
from trainwatch.rules.fit_evidence import FALLING
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.experiments import GoingOn
from trainwatch.symptoms.gradients import gradients_of, learning_rates
from trainwatch.symptoms.plateau import SURE, Trend, promise_of

ENOUGH = 0.03  # of the drop so far: a stretch that gains less is not worth its steps
LOOKS = 64  # at the learning rate: a schedule may have ended near nothing
MOST = 2  # times the run: further on no trend tells
LIKELY = 1.5  # standard errors of what the last passes promise


@dataclass(frozen=True)
class Gain:
    """A gain that counts.

    Attributes:
        trend: Of the loss that it is a gain of.
        value: The gain; `error` is its standard error.
        least: What must be gained.
        beyond: By how much the lower bound of the gain exceeds that.
        seen: What was seen, in words that go on a sentence.
        note: How sure that is.
        steps: Those of the copy that was tried; 0 where none was.
    """

    trend: Trend
    value: float
    error: float
    least: float
    beyond: float
    seen: str
    note: str
    steps: int = 0

    @property
    def margin(self) -> float:
        """In standard errors; of a copy `MODEST`, however sure it is: what else is wrong comes before more steps."""
        return MODEST if self.steps else SURE + self.beyond / max(self.error, 1e-12)


def by_trend(record: RunRecord, trend: Trend, least: float) -> Gain:
    """By the fall over the last stretch; where training alone tells it, also by what the last pass promises."""
    curve, beyond = record.memo(validation_curve), trend.gain - SURE * trend.gain_error - least
    if curve is not None and not trend.validation:
        promise = promise_of(curve)
        sure = math.isfinite(promise) or trend.gain > trend.gain_error
        likely = min(trend.gain, promise * trend.pace) if sure else -math.inf
        beyond = max(min(beyond, promise - least), likely - least)
    return _of(trend, least, beyond)


def by_latest_passes(trend: Trend, least: float) -> Gain:
    """By the last passes alone: too few for a trend, but they may tell all the same."""
    return _of(trend, least, trend.gain - LIKELY * trend.gain_error - least)


def by_copy(trend: Trend, tried: GoingOn, least: float) -> Gain:
    """By what a copy gained that went on learning."""
    seen = (
        f"a copy that went on for {tried.taken} steps came from {tried.before:.3g} to {tried.after:.3g} in validation"
    )
    note = f"of a copy in {tried.taken} steps, from held batches alone; standard error {tried.error:.2g}"
    return Gain(trend, tried.gain, tried.error, least, tried.gain - SURE * tried.error - least, seen, note, tried.taken)


def _of(trend: Trend, least: float, beyond: float) -> Gain:
    seen = f"{trend.fall:.3g} over the last third of the steps, to {trend.end:.3g}"
    return Gain(trend, trend.gain, trend.gain_error, least, beyond, seen, f"standard error {trend.gain_error:.2g}")


def more(record: RunRecord, gain: Gain) -> str:
    """How much longer it pays to train, in words."""
    steps, epochs = _further(gain), int(record.facts["run"].get("epochs") or 0)
    if not epochs:
        return f"{steps} steps"
    count = max(1, round(steps * epochs / gain.trend.last_step))
    return f"{count} epoch{'s' if count > 1 else ''}"


def shown(gain: Gain) -> tuple[Evidence, ...]:
    """The numbers behind a gain."""
    trend, note = gain.trend, f"{gain.note}; {gain.value / gain.trend.drop:.0%} of the drop so far"
    return (
        Evidence(FALLING, gain.value, threshold=gain.least, where=trend.stream, step=trend.last_step, note=note),
        Evidence("fall over the last third", trend.fall, note=f"{trend.before:.3g} over the stretch before"),
        Evidence("loss at the end", trend.end, where=trend.stream, note=f"it began at {trend.reference:.3g}"),
        Evidence(
            "further steps that pay", _further(gain), note=f"until a stretch gains {ENOUGH:.0%} of the drop so far"
        ),
    )


def advice(record: RunRecord, gain: Gain) -> Iterator[Remedy]:
    """To train longer, and to look for a better rate."""
    trend, curve = gain.trend, record.memo(validation_curve)
    yield remedy(
        "train-longer",
        more=more(record, gain),
        gain=gain.value,
        end=trend.end,
        patience=max(3, (0 if curve is None else len(curve.steps)) // 5),
        caution="The trend is an extrapolation: watch validation."
        if curve is not None
        else "No validation was seen: add one, since a falling training loss alone may be memorising.",
    )
    if record.memo(gradients_of) is not None:
        rate = float(learning_rates(record, np.linspace(0, trend.last_step, LOOKS).astype(int)).max())
        yield remedy("tune-learning-rate", present=rate, twice=3 * rate, most=10 * rate)


def _further(gain: Gain) -> int:
    return max(min(gain.trend.steps_until(ENOUGH), MOST * gain.trend.last_step), gain.steps)
