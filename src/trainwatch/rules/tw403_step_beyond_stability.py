"""TW403: steps are longer than the curvature allows, and the loss stands above where shorter ones lead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.step_remedies import lower_rate, tried_lengths
from trainwatch.symptoms.rest import Rest, rest_of
from trainwatch.symptoms.sharpness import Sharpness, sharpness
from trainwatch.symptoms.step_line import StepLine, step_line

SURE = 2.0  # standard errors
GOOD = 0.9  # of the loss of a constant guess gone: then it is not worth the time to look
SAFE = 0.5  # of the limit: a rate to come down to
SAME = 0.01  # rates that differ by less are the same
EFFECTS = ("TW203", "TW204", "TW205", "TW206", "TW208", "TW603", "TW604")


@dataclass(frozen=True)
class StepBeyondStability(Rule):
    """The learning rate is too high for the curvature: steps leap from wall to wall above the floor of a valley.

    ## Symptom
    Rate times sharpness is more than `beyond` times what the optimiser in use is stable at. And the coming step does
    better at a part of its length, by `harm` of the loss of a constant guess and more than the run gains.

    ## Why it hurts
    Across the valley each step overshoots by more than it came from. The loss is held up where steps happen to balance
    one another, well above the floor, which shorter steps would reach at once.

    ## How it is measured
    `sharpness`: the largest eigenvalue of rate times Hessian on held batches, for Adam and its like of the Hessian
    behind their preconditioner. It is measured in evaluation mode: there the loss is a function of the weights alone.
    On a quadratic, steps grow beyond 2 for gradient descent, 2 + 2b with momentum b, (2 + 2b) / (1 + 2b) with
    Nesterov's, and (2 + 2 b1) / (1 - b1) for Adam: 38 at b1 = .9. Harm is an experiment (`step_line`): steps from some
    batches, taken at parts of their length, on others. Judged from `steps` steps on.

    ## Remedies
    `lower-learning-rate`, to half of what is stable or to the length that did best; `decay-learning-rate`.

    ## Not a fault when
    The value hovers about the limit: sound full-batch training does so all along, at the edge of stability, and gets
    lower. Small batches rest on noise: shorter steps would gain a little everywhere. Optimisers whose limit is not
    known are not judged.

    ## Sources
    §9 §13; Cohen et al., "Gradient descent on neural networks typically occurs at the edge of stability" (2021); Cohen
    et al., "Adaptive gradient methods at the edge of stability" (2022).
    """

    code: ClassVar[str] = "TW403"
    name: ClassVar[str] = "step-beyond-stability"
    section: ClassVar[str] = "§9 §13"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "grad_norm", "lr", "sharpness", "step_line")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    beyond: float = 1.1
    harm: float = 0.05
    steps: int = 50

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Where the loss has come to rest without being good: how long steps may be, and whether shorter do better."""
        rest = record.memo(rest_of)
        if (
            rest is not None
            and record.steps >= self.steps
            and rest.learned < GOOD
            and rest.fall < self.harm * rest.scale
        ):
            for kind, priority in (("step_line", 0.4), ("sharpness", 0.35)):
                yield ProbeRequest(kind, (), "are steps too long for the curvature?", priority)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the curvature with the limit of the optimiser, and the step with shorter ones."""
        sharp, line, rest = record.memo(sharpness), record.memo(step_line), record.memo(rest_of)
        if sharp is None or line is None or rest is None or record.steps < self.steps:
            raise NotChecked("too few steps, or losses that are not finite or do not change along a step")
        if abs(line.rate - sharp.rate) > SAME * sharp.rate or sharp.step < line.step:
            raise NotChecked("curvature and shorter steps were measured at different learning rates")
        if sharp.value - sharp.bound <= self.beyond * sharp.limit or not 0 < line.best < 1:
            return
        least = max(self.harm * rest.scale, rest.fall)
        if line.fall < least or line.fall < SURE * line.error:
            return
        yield self._found(record, sharp, line, rest, least)

    def _found(self, record: RunRecord, sharp: Sharpness, line: StepLine, rest: Rest, least: float) -> Diagnosis:
        (optimizer,) = record.facts["optimizers"].values()
        return self.diagnose(
            f"rate times sharpness is {sharp.value:.3g} where {optimizer['type']} is stable up to {sharp.limit:.3g}; "
            f"the loss would fall by {line.fall:.3g} at {line.best:g} times the step, and fell by "
            f"{max(rest.fall, 0.0):.2g} in the last {rest.steps} steps",
            margin=min((line.fall - least) / max(line.error, 0.05 * line.fall), 1e3),
            onset_step=max(0, sharp.step - rest.steps),
            evidence=(
                Evidence("rate times sharpness", sharp.value, self.beyond * sharp.limit, step=sharp.step,
                         note=f"stable up to {sharp.limit:.3g}; within {sharp.bound:.1g}, {sharp.products} products, "
                         f"lr {sharp.rate:.3g}"),
                Evidence("fall of the loss at the best length of the step", line.fall, least, step=line.step,
                         note=f"+- {line.error:.1g}, on batches that the step was not computed from"),
                *tried_lengths(line, 1.0),
                Evidence("fall of the loss lately", rest.fall, step=record.steps, note=f"in {rest.steps} steps"),
            ),
            remedies=tuple(_remedies(record, optimizer, sharp, line)),
        )  # fmt: skip


def _remedies(record: RunRecord, optimizer: dict[str, Any], sharp: Sharpness, line: StepLine) -> Iterator[Remedy]:
    proposed = sharp.rate * min(SAFE / sharp.excess, line.best)
    reason = (
        f"Rate times sharpness is then about {sharp.value * proposed / sharp.rate:.2g}; the limit is {sharp.limit:.3g}."
    )
    yield lower_rate(optimizer["type"], sharp.rate, proposed, reason)
    yield remedy("decay-learning-rate", steps=record.steps)
