"""TW205: the run ended while its loss was still falling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule
from trainwatch.rules.fit_evidence import still_falls
from trainwatch.rules.further_gain import Gain, advice, by_copy, by_latest_passes, by_trend, more, shown
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.experiments import GoingOn, going_on
from trainwatch.symptoms.plateau import Trend, latest_passes, rate_is_steady, trend_of

RESTED = 0.5  # of the least gain: a curve that surely gains less needs no experiment
PRIORITY = 0.66  # before costlier ones


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
    passes alone promise it, less one and a half standard errors, by the losses of the same samples. Or a copy that goes
    on for half as many steps from held batches, few of all that there are, gains `tried_gain` of the drop in validation
    beyond the best pass (`going_on`); under a schedule it goes through another cycle of the rate, and must gain
    `min_gain_again`. Without any validation, where a falling loss may be memorising, the gain must be
    `min_gain_unseen`. At least `learned` of the loss of a constant guess must be gone (of the first loss, where it is
    still near that guess).

    ## Remedies
    `train-longer`, by the number of epochs after which a stretch no longer gains much; `tune-learning-rate`.

    ## Not a fault when
    The learning rate was changed in the last third of the run or brought down to nothing: the end was planned, and how
    the loss fell says nothing. Only a copy that goes through another cycle may.
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
    tried_gain: float = 0.03
    min_gain_again: float = 0.1
    min_relative: float = 0.03
    learned: float = 0.1

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """A copy that goes on learning, where something was learned and the loss did not surely come to rest."""
        curve, trend = record.memo(validation_curve), record.memo(trend_of)
        if curve is None or trend is None or trend.has_dropped < self.learned:
            return
        if not trend.gains_less_than(RESTED, of=self._least(trend, self.min_gain), steps=0.5):
            yield ProbeRequest("going_on", (), "would further steps still bring much?", PRIORITY)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Extrapolate the loss by half the length of the run, or look how a copy went on."""
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended")
        if len(record.facts.get("optimizers", {})) > 1:
            raise NotChecked("several optimisers: their losses have no common course")
        steady, tried = rate_is_steady(record), record.memo(going_on)
        if not steady and tried is None:
            raise NotChecked("the learning rate changed in the last third of the run: the loss follows the schedule")
        trend = record.memo(trend_of)
        if trend is None:
            raise NotChecked("too few steps or validation passes for the trend of the loss")
        if trend.has_dropped >= self.learned:
            for gain in self._gains(record, trend, steady, tried):
                if gain.beyond > 0:
                    yield self._found(record, gain)
                    return

    def _gains(self, record: RunRecord, trend: Trend, steady: bool, tried: GoingOn | None) -> Iterator[Gain]:
        """What further steps would gain, by each of the ways to tell."""
        if steady:
            unseen = record.memo(validation_curve) is None
            yield by_trend(record, trend, self._least(trend, self.min_gain_unseen if unseen else self.min_gain))
            passes = record.memo(latest_passes)
            if passes is not None:
                yield by_latest_passes(passes, self._least(passes, self.min_gain))
        if tried is not None:
            yield by_copy(trend, tried, self._least(trend, self.tried_gain if steady else self.min_gain_again))

    def _found(self, record: RunRecord, gain: Gain) -> Diagnosis:
        trend = gain.trend
        return self.diagnose(
            f"the {'validation' if trend.validation else 'training'} loss was still falling when the run ended: "
            f"{gain.seen}; about {more(record, gain)} more would pay",
            margin=gain.margin,
            where=(trend.stream,),
            onset_step=trend.last_step,
            evidence=shown(gain),
            remedies=tuple(advice(record, gain)),
        )

    def _least(self, trend: Trend, share: float) -> float:
        """What must be gained."""
        return max(share * trend.drop, self.min_relative * abs(trend.end - trend.floor))
