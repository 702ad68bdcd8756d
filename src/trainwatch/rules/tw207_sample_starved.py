"""TW207: the network has learned what its few samples teach, and more of them would teach more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, ProbeRequest, Rule
from trainwatch.rules.fit_remedies import per_sample, sizes
from trainwatch.rules.prior_remedies import prior_remedies
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.experiments import Evaluated, evaluated
from trainwatch.symptoms.learning_curve import LearningCurve, learning_curve, own_curve
from trainwatch.symptoms.plateau import validation_trend

BY = {"forest": "forests", "copies": "copies of the network"}
PROBES = {"own_curve": 0.595, "learning_curve": 0.59, "prior": 0.3}  # before wider nets (TW204)


@dataclass(frozen=True)
class SampleStarved(Rule):
    """Validation is poor while training is not, and a predictor that gets more samples still gets better.

    ## Symptom
    At its best pass the network keeps more than `poor` of the loss of a constant guess in validation, and at the end
    the loss is lower on training samples by more than `gap` of that guess and below `fitted` of the validation loss:
    what they teach is learned. Copies of it, or a forest, that learn from all held samples instead of half of them gain
    so much that twice as many would take another `gain` of the guess off the loss.

    ## Why it hurts
    No number of epochs and no setting makes up for what samples do not show: more of them would, or other knowledge.

    ## How it is measured
    At the end of a run copies of the network begin anew with either half and with all of the held training samples
    (`own_curve`), and forests learn from quarters, halves and all of them (`learning_curve`), scored on held validation
    samples. A power law with a floor through the losses of forests, or the root of the number of samples for copies,
    tells what twice the samples bring; a better network is granted the same share of its own loss. The gain, of copies
    `own_gain` and `part` of what is left (`large` where that is below `fair`), counts beyond `errors` standard errors,
    by what is no worse than the network by `behind` of the guess. Where half as many steps again may bring `gain`,
    copies alone count; they do where at the best pass the training loss was below `learned` of that of validation. The
    gap is that of `evaluated_loss`, by `errors` standard errors, too. At least `held` of the training samples are held.

    ## Remedies
    `more-data`; and prior knowledge by seven ways: `prior-augmentation`, `pretrained`, `prior-features`, `prior-loss`,
    `bayesian-prior`, `prior-rules`, `distillation`.

    ## Not a fault when
    More samples cannot be had and the network is good enough. The curve is flat: the rest is noise, or not in inputs.

    ## Sources
    §17; Hestness et al., "Deep Learning Scaling is Predictable, Empirically" (2017), on power laws.
    """

    code: ClassVar[str] = "TW207"
    name: ClassVar[str] = "sample-starved"
    section: ClassVar[str] = "§17"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "val_loss")
    after: ClassVar[frozenset[str]] = frozenset({"TW201", "TW203"})  # to stop in time costs nothing

    poor: float = 0.15
    gap: float = 0.1
    fitted: float = 0.5
    gain: float = 0.04
    own_gain: float = 0.03
    fair: float = 0.2
    part: float = 0.08
    large: float = 0.5
    learned: float = 0.85
    errors: float = 2.0
    behind: float = 0.25
    held: float = 0.5

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """What samples are worth, where validation is not good and training is."""
        curve, look = record.memo(validation_curve), record.memo(evaluated)
        if curve is None or curve.kept is None or curve.chance is None or not curve.training[-1] < curve.mean[-1]:
            return
        if (kept := float(curve.kept.min())) > self.poor:
            if look is None:
                yield ProbeRequest("train_eval", (), "validation is not good: is training?", 0.63)
            elif self._taught(look, kept * (guess := curve.chance - curve.floor), guess, curve.floor):
                yield from (ProbeRequest(kind, (), "would more samples help?", first) for kind, first in PROBES.items())

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        passes, look = record.memo(validation_curve), record.memo(evaluated)
        curves = [curve for curve in (record.memo(own_curve), record.memo(learning_curve)) if curve is not None]
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended")
        if not curves or passes is None or look is None:
            if any(True for _ in self.asks(record)):
                raise NotChecked("validation is not good, and what more samples would bring was not measured")
            return
        guess, floor = curves[0].span, curves[0].floor
        best = float(min(passes.mean.min(), curves[0].net)) - floor
        if best <= self.poor * guess or not self._taught(look, best, guess, floor):
            return
        if curves[0].samples < self.held * (known := sizes(record)[0]):
            raise NotChecked(f"{curves[0].samples} of {known} training samples are held: too few for a curve")
        telling = [curve for curve in curves if curve.left <= best + self.behind * guess]
        if not telling:
            raise NotChecked("what learns from held samples alone does far worse than the network: it tells nothing")
        trend = record.memo(validation_trend)
        if trend is not None and not trend.gains_less_than(self.gain, of=guess, steps=0.5):
            telling = [curve for curve in telling if curve.by == "copies"]  # which all take as many steps
        if not telling:
            raise NotChecked("validation may still have been falling when the run ended")
        if passes.training[passes.mean.argmin()] - floor > self.learned * best:
            telling = [curve for curve in telling if curve.by == "forest"]
        found = max(telling, key=lambda curve: self._beyond(curve, best), default=None)
        if found is not None and self._beyond(found, best) > 0:
            yield self._found(record, found, look, best)

    def _taught(self, look: Evaluated, best: float, guess: float, floor: float) -> bool:
        """Whether the samples that there are have taught what they can: training is far below validation."""
        gap, error = look.gap
        return gap >= max(self.gap * guess, self.errors * error) and look.training - floor <= self.fitted * best

    def _beyond(self, curve: LearningCurve, best: float) -> float:
        """By how much the gain by twice the samples is more than it must be."""
        gain, error = (curve.share_left(best) * number for number in (curve.gain, curve.gain_error))
        return gain - max(self._least(curve, best), self.errors * error)

    def _least(self, curve: LearningCurve, best: float) -> float:
        part = self.part if best > self.fair * curve.span else self.large
        return self.gain * curve.span if curve.by == "forest" else max(self.own_gain * curve.span, part * best)

    def _found(self, record: RunRecord, curve: LearningCurve, look: Evaluated, best: float) -> Diagnosis:
        known, parameters = sizes(record)
        samples, kept = known or curve.samples, best / curve.span
        gain, error = (curve.share_left(best) * number for number in (curve.gain, curve.gain_error))
        fitted = max(look.training - curve.floor, 0) / curve.span
        return self.diagnose(
            f"validation keeps {kept:.0%} of the loss of a constant guess at its best, training {fitted:.0%} at the "
            f"end; twice the {samples} samples would take about {gain:.2g} off, by what {BY[curve.by]} gain",
            margin=(gain - self._least(curve, best)) / max(error, 1e-9), where=("training samples",), onset_step=0,
            evidence=(
                Evidence("gain by twice the samples", gain, max(self._least(curve, best), self.errors * error),
                         step=curve.step, note=f"by the share that {BY[curve.by]} gain, which come to {curve.told}; "
                         f"standard error {error:.2g}"),
                Evidence("lowest validation loss", best + curve.floor, self.poor * curve.span + curve.floor,
                         note=f"chance {curve.guess:.3g}"),
                Evidence("gap between training and validation", look.gap[0], self.gap * curve.span, step=look.step,
                         note=f"{look.training:.3g} against {look.validation:.3g}, both in evaluation mode"),
            ),
            remedies=(remedy("more-data", ratio=per_sample(parameters, samples)), *prior_remedies(record, curve)),
        )  # fmt: skip
