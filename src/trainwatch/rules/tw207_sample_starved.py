"""TW207: the network has learned what its few samples teach, and more of them would teach more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, ProbeRequest, Rule
from trainwatch.rules.fit_remedies import per_sample, sizes
from trainwatch.rules.prior_remedies import prior_remedies
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.experiments import Evaluated, evaluated
from trainwatch.symptoms.learning_curve import LearningCurve, learning_curve
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.plateau import validation_trend

PROBES = {"train_eval": 0.45, "learning_curve": 0.48, "prior": 0.3}


@dataclass(frozen=True)
class SampleStarved(Rule):
    """Validation is poor while training is not, and a predictor that gets more samples still gets better.

    ## Symptom
    At its best pass the network keeps more than `poor` of the loss of a constant guess in validation, and at the end
    the loss is lower on training samples by more than `gap` of that guess and below `fitted` of the validation loss:
    what they teach is learned. A forest that learns from all held samples instead of half of them gains so much that
    twice as many would take another `gain` of the guess off the loss.

    ## Why it hurts
    No number of epochs and no setting makes up for what the samples do not show. More of them would, or knowledge that
    comes from elsewhere.

    ## How it is measured
    At the end of a run forests learn from quarters, halves and all of the held training samples and are scored on the
    held validation samples by the run's criterion (`learning_curve`). A power law with a floor through the three losses
    tells what twice the samples bring; a network that is better than the forest is granted the same share of its own
    loss. The gain counts from `errors` standard errors on, over validation samples and draws of the halves, and where
    the forest is no worse than the network by `behind` of the guess: one that is says nothing about it. Half as many
    steps again must not bring `gain` either. The gap is that of `evaluated_loss`, also by `errors` standard errors. At
    least `held` of the training samples must be held: a curve through a few of many says nothing of the rest.

    ## Remedies
    `more-data`; and prior knowledge by seven ways: `prior-augmentation`, `pretrained`, `prior-features`, `prior-loss`,
    `bayesian-prior`, `prior-rules`, `distillation`.

    ## Not a fault when
    More samples cannot be had and the network is good enough. The curve is flat: then the rest is noise in the targets,
    or missing in the inputs, and more of the same does not help.

    ## Sources
    §17; Hestness et al., "Deep Learning Scaling is Predictable, Empirically" (2017), on power laws.
    """

    code: ClassVar[str] = "TW207"
    name: ClassVar[str] = "sample-starved"
    section: ClassVar[str] = "§17"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "val_loss")

    poor: float = 0.15
    gap: float = 0.1
    fitted: float = 0.5
    gain: float = 0.04
    errors: float = 2.0
    behind: float = 0.25
    held: float = 0.5

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """What samples are worth, where validation is not good."""
        curve, course = record.memo(validation_curve), record.memo(loss_course)
        if curve is None or course is None or not course.chance:
            return
        if curve.mean.min() > self.poor * abs(course.chance) and curve.training[-1] < curve.mean[-1]:
            for kind, priority in PROBES.items():
                yield ProbeRequest(kind, (), "validation is worse than training: would more samples help?", priority)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Weigh what more samples would bring where the network does worse on new ones."""
        passes, curve, look = record.memo(validation_curve), record.memo(learning_curve), record.memo(evaluated)
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended")
        if curve is None or passes is None or look is None:
            if any(True for _ in self.asks(record)):
                raise NotChecked("validation is not good, and what more samples would bring was not measured")
            return
        best = float(min(passes.mean.min(), curve.net))
        gap, error = float(look.validation - look.training), float(np.hypot(look.validation_error, look.training_error))
        if best <= self.poor * curve.guess or not gap >= max(self.gap * curve.guess, self.errors * error):
            return
        if look.training > self.fitted * best:
            return  # the samples that there are teach more than has been learned
        trend = record.memo(validation_trend)
        if trend is not None and not trend.gains_less_than(self.gain, of=curve.guess, steps=0.5):
            raise NotChecked("validation may still have been falling when the run ended")
        known = int(record.facts.get("run", {}).get("train_samples") or 0)
        if curve.samples < self.held * known:
            raise NotChecked(
                f"{curve.samples} of {known} training samples are held: too few to say what more would bring"
            )
        if curve.losses[2] > best + self.behind * curve.guess:
            raise NotChecked("a forest does far worse than the network: what samples are worth to it says nothing here")
        gain, of_gain = (curve.share_left(best) * number for number in (curve.gain, curve.gain_error))
        if gain > max(self.gain * curve.guess, self.errors * of_gain):
            yield self._found(record, curve, look, best)

    def _found(self, record: RunRecord, curve: LearningCurve, look: Evaluated, best: float) -> Diagnosis:
        samples, parameters = sizes(record)
        samples = samples or curve.samples
        quarter, half, whole = curve.losses
        gain, error = (curve.share_left(best) * number for number in (curve.gain, curve.gain_error))
        ratio = per_sample(parameters, samples) if parameters else f"{samples} samples"
        return self.diagnose(
            f"validation keeps {best / curve.guess:.0%} of the loss of a constant guess at its best, training "
            f"{max(look.training, 0) / curve.guess:.0%} at the end; twice the {samples} samples would take about "
            f"{gain:.2g} off, by what they are worth to a forest",
            margin=(gain - self.gain * curve.guess) / max(error, 1e-9),
            where=("training samples",),
            onset_step=0,
            evidence=(
                Evidence("gain by twice the samples", gain, max(self.gain * curve.guess, self.errors * error),
                         step=curve.step, note=f"by a power law and the share that a forest gains, which comes to "
                         f"{quarter:.3g}, {half:.3g} and {whole:.3g} with {curve.samples // 4}, {curve.samples // 2} "
                         f"and {curve.samples} of them; standard error {error:.2g}"),
                Evidence("validation loss at its best", best, self.poor * curve.guess,
                         note=f"a constant guess costs {curve.guess:.3g}"),
                Evidence("gap between training and validation", float(look.validation - look.training),
                         self.gap * curve.guess, step=look.step,
                         note=f"{look.training:.3g} against {look.validation:.3g}, both in evaluation mode"),
            ),
            remedies=(remedy("more-data", ratio=ratio), *prior_remedies(record, curve)),
        )  # fmt: skip
