"""TW604: now and then a batch whose loss and gradient dwarf all others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, always
from trainwatch.rules.robust_loss import robust_loss
from trainwatch.rules.step_remedies import clipping
from trainwatch.symptoms.gradients import gradients_of
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.plateau import gained_in_both
from trainwatch.symptoms.spikes import Spikes, spikes_of

SHOWN = 6
EFFECTS = ("TW201", "TW203", "TW204", "TW205", "TW208", "TW302", "TW304", "TW305", "TW306", "TW401", "TW402", "TW602")


@dataclass(frozen=True)
class LossSpikes(Rule):
    """Time and again single batches have a loss and a gradient that dwarf those of all others.

    ## Symptom
    At least `count` spikes: losses that rise above those about them by more than `height` times the loss of a constant
    guess, and by `deviations` standard deviations, and are back within a few steps.

    ## Why it hurts
    A few samples teach more than all the rest. A plain step along such a gradient undoes many others; an adaptive
    optimiser averages its square, and takes tiny steps for a thousand batches.

    ## How it is measured
    Each loss against the median of the 25 about it, where the loss is held at full resolution. Harm is told by the
    gradients: the largest is more than `gradient` times the largest of all other steps (1 % left out), or `stuck` times
    where less than `learned` of the loss is gone, in training or in validation, and those of the spikes make up
    `energy` of the run's sum of squares.

    ## Remedies
    `gradient-clipping` at a norm of this run; `look-at-spikes`, the steps whose batches are worth a look;
    `robust-loss` for regressions.

    ## Not a fault when
    Gradients are clipped already: it is a remark then. A spike or two of a small batch, or of a rare class that is
    being learned, brings no gradient beyond measure.

    ## Sources
    §9; Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks" (2013), on clipping;
    Zhang et al., "Why are adaptive methods good for attention models?" (2020), on heavy-tailed gradients.
    """

    code: ClassVar[str] = "TW604"
    name: ClassVar[str] = "loss-spikes"
    section: ClassVar[str] = "§9"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "grad_norm")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    count: int = 2
    height: float = 0.5
    deviations: float = 10.0
    gradient: float = 50.0
    stuck: float = 10.0
    learned: float = 0.5
    energy: float = 0.75

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Look for spikes of the loss, and at the gradients that came with them."""
        course = record.memo(loss_course)
        if record.memo(gradients_of) is None:
            raise NotChecked("several optimisers: their losses have no common course")
        if course is None:
            raise NotChecked("no loss was seen that is a number")
        spikes = spikes_of(record, self.height, self.deviations)
        if spikes is None:
            raise NotChecked("too few losses were seen to tell a spike from the others")
        if len(spikes) < self.count or spikes.gradient is None or spikes.energy is None:
            return
        least = self.gradient if record.memo(gained_in_both) >= self.learned else self.stuck
        if spikes.gradient >= least and spikes.energy >= self.energy:
            yield self._found(record, spikes, spikes.gradient, spikes.energy, least)

    def _found(self, record: RunRecord, spikes: Spikes, gradient: float, energy: float, least: float) -> Diagnosis:
        remedies = tuple(_remedies(record, spikes, gradient))
        clipped = any(r.already_in_use for r in remedies)
        top, n = int(spikes.heights.argmax()), len(spikes)
        step, level = int(spikes.steps[top]), float(spikes.levels[top])
        loss = level + float(spikes.heights[top])
        last = int(spikes.steps[-1])
        return self.diagnose(
            f"the loss shot up {n} times, at step {step} to {loss:.3g} among losses near {level:.3g}; a gradient was "
            f"{gradient:.2g} times those of other steps then, and {energy:.0%} of all squared gradient came with them",
            severity=Severity.INFO if clipped else self.severity,
            margin=float(np.clip(min(np.log(gradient / least), n - self.count + 1), 0, 1e3)),
            onset_step=int(spikes.steps[0]),
            evidence=(
                Evidence("spikes of the loss", n, self.count, where=spikes.stream, step=last,
                         note=f"at steps {_listed(spikes)}; {n / spikes.rows:.2%} of the steps"),
                Evidence("highest rise over the loss of chance", float(spikes.heights[top] / spikes.reference),
                         self.height, where=spikes.stream, step=step),
                Evidence("largest gradient over those of other steps", gradient, least, step=step),
                Evidence("share of the squared gradients", energy, self.energy, step=last),
            ),
            remedies=remedies,
        )  # fmt: skip


def _listed(spikes: Spikes) -> str:
    steps = ", ".join(str(int(s)) for s in spikes.steps[:SHOWN])
    return f"{steps} and {len(spikes) - SHOWN} more" if len(spikes) > SHOWN else steps


def _remedies(record: RunRecord, spikes: Spikes, gradient: float) -> Iterator[Remedy]:
    if spikes.usual is not None:
        reason = "Nine in ten norms of the other steps were below it."
        yield clipping(record, spikes.usual, reason, cuts=gradient * spikes.usual)
    yield remedy("look-at-spikes", steps=_listed(spikes), most=float(spikes.levels.max() + spikes.heights.min() / 2))
    function = str(record.facts.get("loss", {}).get(spikes.stream, {}).get("function"))
    if function == "mse_loss":
        yield robust_loss(record)
