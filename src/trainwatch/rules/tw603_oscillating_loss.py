"""TW603: the loss swings to and fro and gets no lower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, always
from trainwatch.rules.step_remedies import lower_rate
from trainwatch.symptoms.gradients import gradients_of
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.motion import Reach, reach_of
from trainwatch.symptoms.plateau import rate_is_steady
from trainwatch.symptoms.swings import Swing, swing_of

SANE = 0.05  # mean update over weights to come down to
FACTORS = (4.0, 100.0)  # least and most that a rate is divided by


@dataclass(frozen=True)
class OscillatingLoss(Rule):
    """Each step leaps over the minimum and the next one back: the loss swings and does not come to rest.

    ## Symptom
    In the second half of the run (at most its last 2,048 losses) the loss some steps later is the opposite of the loss
    now, by a correlation of -`opposite` or less, and the swing is wider than what those losses gained.

    ## Why it hurts
    The minimum lies in between. Steps a fraction as long would have come to rest in it, long before the end.

    ## How it is measured
    Autocorrelation of the loss about a straight line, at lags of 1 to 24 steps, at least `errors` standard errors of
    independent losses beyond zero: the noise of small batches has none. Harm: the deviation about the line is more
    than `swing` of the loss of a constant guess, of which less than `fair` is gone at the end. Cause: an update is
    longer than `update` of the weights, on average.

    ## Remedies
    `lower-learning-rate`; `decay-learning-rate`; `lower-momentum` where half a swing takes several steps.

    ## Not a fault when
    The learning rate changes: restarts make the loss swing on purpose. Batches come in a fixed order, which the loss
    repeats every epoch: then only neighbouring steps are compared. An epoch has fewer than `batches` batches, but more
    than one: what one of them lacks the others have.

    ## Sources
    §9; LeCun, Bottou, Orr and Müller, "Efficient backprop" (1998), 4.6: beyond twice the optimal rate steps diverge,
    between once and twice they oscillate.
    """

    code: ClassVar[str] = "TW603"
    name: ClassVar[str] = "oscillating-loss"
    section: ClassVar[str] = "§9"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "grad_norm", "lr")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(("TW203", "TW204", "TW205", "TW206", "TW208"), always)

    opposite: float = 0.5
    errors: float = 3.5
    swing: float = 0.02
    fair: float = 0.75
    update: float = 0.3
    batches: int = 6

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Correlate the loss with itself some steps later."""
        course, reach = record.memo(loss_course), record.memo(reach_of)
        if course is None or not course.span:
            raise NotChecked("no training loss was seen that swings could be compared with")
        if reach is None:
            raise NotChecked("the length of a step is not known for these optimisers")
        batches = _batches_in_an_epoch(record)
        if 1 < batches < self.batches:
            raise NotChecked(f"an epoch of {batches} batches makes a loss that swings by itself")
        if not rate_is_steady(record):
            raise NotChecked("the learning rate changed in the last third of the run: the loss follows the schedule")
        swing = record.memo(swing_of)
        if swing is None:
            raise NotChecked("the second half of the run has too few losses, or some that are not finite")
        beyond = -swing.correlation / swing.error
        if swing.correlation > -self.opposite or beyond < self.errors or swing.size < swing.fall:
            return
        wide, mean = swing.size / course.span, reach.total / reach.steps
        if wide < self.swing or course.gained >= self.fair or mean < self.update:
            return
        yield self._found(record, swing, reach, wide, course.gained)

    def _found(self, record: RunRecord, swing: Swing, reach: Reach, wide: float, gained: float) -> Diagnosis:
        mean, last = reach.total / reach.steps, record.steps - 1
        steps = "from one step to the next" if swing.lag == 1 else f"every {swing.lag} steps"
        return self.diagnose(
            f"the loss swings to the other side {steps} by {swing.size:.3g}, and the second half of the run gained "
            f"{max(swing.fall, 0.0):.2g}; an update is {mean:.2g} times the weights' length at a learning rate of "
            f"{reach.rate:.3g}",
            margin=float(np.clip((-swing.correlation - self.opposite) / swing.error, 0, 1e3)),
            where=(swing.stream,),
            onset_step=int(last // 2),
            evidence=(
                Evidence("correlation of the loss with that half a swing later", swing.correlation, -self.opposite,
                         where=swing.stream, step=last, note=f"{swing.lag} steps; standard error {swing.error:.2g}"),
                Evidence("deviation over the loss of a constant guess", wide, self.swing, where=swing.stream),
                Evidence("share of the loss that training removed", gained, self.fair, where=swing.stream, step=last),
                Evidence("mean update over weights", mean, self.update, note=f"{reach.optimizer}, lr {reach.rate:.3g}"),
            ),
            remedies=tuple(_remedies(record, swing, reach)),
        )  # fmt: skip


def _batches_in_an_epoch(record: RunRecord) -> int:
    epochs = int(record.facts.get("run", {}).get("epochs") or 0)
    return round(record.steps / epochs) if epochs else 0


def _remedies(record: RunRecord, swing: Swing, reach: Reach) -> Iterator[Remedy]:
    factor = float(np.clip(reach.total / reach.steps / SANE, *FACTORS))
    reason = f"An update is then about {reach.total / reach.steps / factor:.1g} times the weights' length."
    yield lower_rate(reach.optimizer, reach.rate, reach.rate / factor, reason)
    yield remedy("decay-learning-rate", steps=record.steps)
    gradients = record.memo(gradients_of)
    groups: list[Any] = gradients.optimizer["groups"] if gradients is not None else []
    momentum = max((float(g.get("momentum") or 0.0) for g in groups), default=0.0)
    if momentum > 0.7 and swing.lag > 2:
        yield remedy("lower-momentum", present=f"{momentum:g}", proposed=f"{1 - 3 * (1 - momentum):.3g}")
