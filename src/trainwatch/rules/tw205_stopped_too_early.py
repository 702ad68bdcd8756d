"""TW205: the run ended while its loss was still falling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule
from trainwatch.rules.fit_evidence import FALLING, still_falls
from trainwatch.symptoms.curves import ValidationCurve, validation_curve
from trainwatch.symptoms.gradients import gradients_of, learning_rate
from trainwatch.symptoms.plateau import SURE, Trend, latest_passes, promise_of, rate_is_steady, trend_of

LIKELY = 1.5  # standard errors of what the last passes promise
ENOUGH = 0.03  # of the drop so far: a stretch that gains less is not worth its steps


@dataclass(frozen=True)
class StoppedTooEarly(Rule):
    """The loss was still falling clearly when the run ended.

    ## Symptom
    Half as many steps again would take at least `min_gain` of the drop so far off the validation loss, and at least
    `min_relative` of what is left of it.

    ## Why it hurts
    The network could have done better for nothing but time, and comparisons between such runs compare how fast they
    began, not how good they get.

    ## How it is measured
    The fall over the last third of the run, against the logarithm of time, and that over the stretch before it: their
    ratio says how the curve flattens out. The gain expected from that counts less two standard errors. With too few
    passes the training loss is measured instead, and the last validation pass must be the lowest and promise as much;
    where the training loss is too noisy for a bound, at the pace at which training flattens out. Or the last three
    passes alone promise it, less one and a half standard errors, by the losses of the same samples. Without any
    validation, where a falling loss may be memorising, the gain must be `min_gain_unseen`. At least `learned` of the
    loss of a constant guess must be gone (of the first loss, where it is still near that guess).

    ## Remedies
    `train-longer`, by the number of epochs after which a stretch no longer gains much; `tune-learning-rate`.

    ## Not a fault when
    The learning rate was changed in the last third of the run or brought down to nothing: the end was planned.
    Nothing was learned at all: that has another cause.

    ## Sources
    §3; Domhan, Springenberg and Hutter, "Speeding up automatic hyperparameter optimization of deep neural networks by
    extrapolation of learning curves" (2015).
    """

    code: ClassVar[str] = "TW205"
    name: ClassVar[str] = "stopped-too-early"
    section: ClassVar[str] = "§3"
    needs: ClassVar[tuple[str, ...]] = ("train_loss",)
    explains: ClassVar[dict[str, Predicate]] = {"TW204": still_falls}

    min_gain: float = 0.05
    min_gain_unseen: float = 0.2
    min_relative: float = 0.03
    learned: float = 0.1

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Extrapolate the loss by half the length of the run."""
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended")
        if len(record.facts.get("optimizers", {})) > 1:
            raise NotChecked("several optimisers: their losses have no common course")
        if not rate_is_steady(record):
            raise NotChecked("the learning rate changed in the last third of the run: the loss follows the schedule")
        trend = record.memo(trend_of)
        if trend is None:
            raise NotChecked("too few steps or validation passes for the trend of the loss")
        curve = record.memo(validation_curve)
        share = self.min_gain if curve is not None else self.min_gain_unseen
        if trend.drop < self.learned * abs(trend.reference):
            return
        least = self._least(trend, share)
        beyond = trend.gain - SURE * trend.gain_error - least
        if curve is not None and not trend.validation:
            promise = promise_of(curve)
            sure = math.isfinite(promise) or trend.gain > trend.gain_error
            likely = min(trend.gain, promise * trend.pace) if sure else -math.inf
            beyond = max(min(beyond, promise - least), likely - least)
        passes = record.memo(latest_passes)
        if beyond <= 0 and passes is not None:  # too few for a trend, but they may tell all the same
            trend, least = passes, self._least(passes, self.min_gain)
            beyond = trend.gain - LIKELY * trend.gain_error - least
        if beyond <= 0:
            return
        steps, more = trend.steps_until(ENOUGH), _in_words(record, trend)
        yield self.diagnose(
            f"the {'validation' if trend.validation else 'training'} loss was still falling when the run ended: "
            f"{trend.fall:.3g} over the last third of the steps, to {trend.end:.3g}; about {more} more would pay",
            margin=SURE + beyond / max(trend.gain_error, 1e-12),
            where=(trend.stream,),
            onset_step=trend.last_step,
            evidence=(
                Evidence(
                    FALLING,
                    trend.gain,
                    threshold=least,
                    where=trend.stream,
                    step=trend.last_step,
                    note=f"standard error {trend.gain_error:.2g}; {trend.gain / trend.drop:.0%} of the drop so far",
                ),
                Evidence("fall over the last third", trend.fall, note=f"{trend.before:.3g} over the stretch before"),
                Evidence("loss at the end", trend.end, where=trend.stream, note=f"it began at {trend.reference:.3g}"),
                Evidence("further steps until a stretch gains little", steps, note=f"{ENOUGH:.0%} of the drop so far"),
            ),
            remedies=tuple(_remedies(record, trend, curve, more)),
        )

    def _least(self, trend: Trend, share: float) -> float:
        """What must be gained."""
        return max(share * trend.drop, self.min_relative * abs(trend.end))


def _in_words(record: RunRecord, trend: Trend) -> str:
    steps, epochs = trend.steps_until(ENOUGH), int(record.facts["run"].get("epochs") or 0)
    if not epochs:
        return f"{steps} steps"
    count = max(1, round(steps * epochs / trend.last_step))
    return f"{count} epoch{'s' if count > 1 else ''}"


def _remedies(record: RunRecord, trend: Trend, curve: ValidationCurve | None, more: str) -> Iterator[Remedy]:
    passes = 0 if curve is None else len(curve.steps)
    yield remedy(
        "train-longer",
        more=more,
        gain=trend.gain,
        end=trend.end,
        patience=max(3, passes // 5),
        caution="The trend is an extrapolation: watch validation."
        if curve is not None
        else "No validation was seen: add one, since a falling training loss alone may be memorising.",
    )
    if record.memo(gradients_of) is not None:
        rate = learning_rate(record, trend.last_step)
        yield remedy("tune-learning-rate", present=rate, twice=3 * rate, most=10 * rate)
