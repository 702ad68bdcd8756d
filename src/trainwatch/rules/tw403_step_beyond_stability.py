"""TW403: steps as long as the curvature bears hold the loss up, where shorter ones lead down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.step_remedies import lower_rate as proposal
from trainwatch.symptoms.lower_rate import Gain, LowerRate, lower_rate
from trainwatch.symptoms.rest import Rest, rest_of
from trainwatch.symptoms.sharpness import Sharpness, sharpness

SURE = 2.0  # standard errors
Tried = tuple[str, float, float, Gain]  # of training or validation: gain, the least that counts, what was measured
SAFE = 0.5  # of the limit: a rate to come down to
EFFECTS = ("TW203", "TW204", "TW205", "TW206", "TW208", "TW304", "TW305", "TW603", "TW604")


@dataclass(frozen=True)
class StepBeyondStability(Rule):
    """The learning rate is too high for the curvature: steps leap from wall to wall above the floor of a valley.

    ## Symptom
    Rate times sharpness is at least `near` times what the optimiser in use is stable at. And a copy of the model that
    goes on at a third of the rate comes to a loss lower than that of a copy at the present rate by `harm` of the loss
    of a constant guess, in training and in validation; in training also than that of the run, and by `part` of it.

    ## Why it hurts
    Across the valley each step overshoots by as much as it came from, or more. The loss is held up where steps happen
    to balance one another, well above the floor, which shorter steps would reach at once.

    ## How it is measured
    `sharpness`: the largest eigenvalue of rate times Hessian on held batches, for Adam and its like of the Hessian
    behind their preconditioner. It is measured in evaluation mode: there the loss is a function of the weights alone.
    On a quadratic, steps grow beyond 2 for gradient descent, 2 + 2b with momentum b, (2 + 2b) / (1 + 2b) with
    Nesterov's, and (2 + 2 b1) / (1 - b1) for Adam: 38 at b1 = .9. A run held up and a sound one hover there alike, so
    harm is an experiment (`lower_rate`): both copies learn from the same held batches, and what counts is the mean of
    several looks, beyond the noise of samples. Judged from `steps` steps on.

    ## Remedies
    `lower-learning-rate`, to half of what is stable and no more than what was tried; `decay-learning-rate`.

    ## Not a fault when
    A lower rate gains little: sound training without noise hovers about the limit all along, at the edge of stability,
    and gets lower. Where steps are far within what is stable, a lower rate gains by averaging the noise of small
    batches: that is what a schedule is for, and no fault. Optimisers whose limit is not known are not judged.

    ## Sources
    §9 §13; Cohen et al., "Gradient descent on neural networks typically occurs at the edge of stability" (2021); Cohen
    et al., "Adaptive gradient methods at the edge of stability" (2022).
    """

    code: ClassVar[str] = "TW403"
    name: ClassVar[str] = "step-beyond-stability"
    section: ClassVar[str] = "§9 §13"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "grad_norm", "lr", "sharpness")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    near: float = 0.7
    harm: float = 0.03
    part: float = 0.25
    steps: int = 50

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Where so much is left to gain and is not being gained: how long steps may be, and what shorter ones bring."""
        rest = record.memo(rest_of)
        if rest is None or record.steps < self.steps or rest.learned >= 1 - self.harm:
            return
        if rest.fall - SURE * rest.error < self.harm * rest.scale:
            for kind, priority in (("sharpness", 0.65), ("lower_rate", 0.64)):
                yield ProbeRequest(kind, (), "are steps too long for the curvature?", priority)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the curvature with the limit of the optimiser, and the present rate with a lower one."""
        sharp, tried, rest = record.memo(sharpness), record.memo(lower_rate), record.memo(rest_of)
        if sharp is None or rest is None or record.steps < self.steps:
            raise NotChecked("too few steps, or losses that are not finite")
        if sharp.value + sharp.bound < self.near * sharp.limit:
            return
        if tried is None or tried.step != sharp.step:
            raise NotChecked("whether a lower rate would do better was not tried at the end of the run")
        gains = list(self._gains(tried, rest))
        if all(value >= least and value >= SURE * gain.error for _, value, least, gain in gains):
            yield self._found(record, sharp, tried, rest, gains)

    def _gains(self, tried: LowerRate, rest: Rest) -> Iterator[Tried]:
        training, harm = tried.training, self.harm * rest.scale
        # A copy may chance upon a spike that the run did not meet: what counts is below both.
        held_up = min(training.value, rest.level - training.lower)
        yield "training", held_up, max(harm, self.part * training.present), training
        if tried.validation is not None:
            yield "validation", tried.validation.value, harm, tried.validation

    def _found(
        self, record: RunRecord, sharp: Sharpness, tried: LowerRate, rest: Rest, gains: list[Tried]
    ) -> Diagnosis:
        (optimizer,) = record.facts["optimizers"].values()
        share, shown = f"{tried.share:.2g} of the rate", tried.training
        return self.diagnose(
            f"rate times sharpness is {sharp.value:.3g} where {optimizer['type']} is stable up to {sharp.limit:.3g}, "
            f"and at {share} a copy comes to a training loss of {shown.lower:.3g}, where another stays at "
            f"{shown.present:.3g}",
            margin=min(1e3, *((value - least) / max(gain.error, 0.05 * value) for _, value, least, gain in gains)),
            onset_step=max(0, sharp.step - rest.steps),
            evidence=(
                Evidence("rate times sharpness", sharp.value, self.near * sharp.limit, step=sharp.step,
                         note=f"stable up to {sharp.limit:.3g}; within {sharp.bound:.1g}, {sharp.products} products, "
                         f"lr {sharp.rate:.3g}"),
                *(Evidence(f"gain in {kind} by going on at {share}", value, least, step=tried.step,
                           note=f"{gain.lower:.3g}, at the present rate {gain.present:.3g}; standard error "
                           f"{gain.error:.1g}") for kind, value, least, gain in gains),
                Evidence("training loss of the run", rest.level, step=record.steps),
            ),
            remedies=tuple(_remedies(record, optimizer, sharp, tried)),
        )  # fmt: skip


def _remedies(record: RunRecord, optimizer: dict[str, Any], sharp: Sharpness, tried: LowerRate) -> Iterator[Remedy]:
    proposed = sharp.rate * min(SAFE / sharp.excess, tried.share)
    reason = (
        f"Rate times sharpness is then about {sharp.value * proposed / sharp.rate:.2g}; the limit is {sharp.limit:.3g}."
    )
    yield proposal(optimizer["type"], sharp.rate, proposed, reason)
    yield remedy("decay-learning-rate", steps=record.steps)
