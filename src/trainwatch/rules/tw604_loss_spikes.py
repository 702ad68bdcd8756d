"""TW604: now and then a batch whose loss and gradient dwarf all others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.spike_evidence import Told, advice, broken_told, harm_told, heights_told, story
from trainwatch.symptoms.gradients import gradients_of
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.plateau import gained_in_both
from trainwatch.symptoms.spikes import COUNT, DEVIATIONS, FAR, HEIGHT, Spikes, broken_samples, spikes_of

PRIORITY = 0.9  # it takes no time
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
    Each loss against the median of the 25 about it, where the loss is held at full resolution. Where inputs of some
    held training samples are 30 times as large as usual (`row_sizes`), they are to blame, and half of the deviations
    will do. Elsewhere harm is told by the gradients: the largest is more than `gradient` times the largest of all other
    steps (1 % left out), or `stuck` times where less than `learned` of the loss is gone, in training or in validation,
    and those of the spikes make up `energy` of the run's sum of squares.

    ## Remedies
    `repair-samples` where some are broken; `gradient-clipping` at a norm of this run; `look-at-spikes`, the steps whose
    batches are worth a look;
    `robust-loss` for regressions.

    ## Not a fault when
    Gradients are clipped already: it is a remark then, unless a share of `common` of the samples or more is broken. A
    spike or two of a small batch, or of a rare class that is being learned, brings no gradient beyond measure.

    ## Sources
    §9; Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks" (2013), on clipping;
    Zhang et al., "Why are adaptive methods good for attention models?" (2020), on heavy-tailed gradients.
    """

    code: ClassVar[str] = "TW604"
    name: ClassVar[str] = "loss-spikes"
    section: ClassVar[str] = "§9"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "grad_norm")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    count: int = COUNT
    height: float = HEIGHT
    deviations: float = DEVIATIONS
    gradient: float = 50.0
    stuck: float = 10.0
    learned: float = 0.5
    energy: float = 0.75
    common: float = 0.004

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Whether inputs of some samples dwarf all others, where there are spikes."""
        spikes = spikes_of(record, self.height, self.deviations / 2)
        if spikes is not None and len(spikes) >= self.count:
            yield ProbeRequest("row_sizes", (), "are there broken samples behind the spikes?", PRIORITY)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Look for spikes of the loss, and at the gradients that came with them."""
        course = record.memo(loss_course)
        if record.memo(gradients_of) is None:
            raise NotChecked("several optimisers: their losses have no common course")
        if course is None:
            raise NotChecked("no loss was seen that is a number")
        broken = record.memo(broken_samples)
        spikes = spikes_of(record, self.height, self.deviations / (1 if broken is None else 2))
        if spikes is None:
            raise NotChecked("too few losses were seen to tell a spike from the others")
        if len(spikes) < self.count:
            return
        if broken is not None:
            yield self._found(record, spikes, broken.largest / FAR, broken_told(broken))
        elif spikes.gradient is not None and spikes.energy is not None:
            least = self.gradient if record.memo(gained_in_both) >= self.learned else self.stuck
            if spikes.gradient >= least and spikes.energy >= self.energy:
                shown = harm_told(spikes, least, self.energy)
                yield self._found(record, spikes, spikes.gradient / least, shown)

    def _found(self, record: RunRecord, spikes: Spikes, times: float, told: Told) -> Diagnosis:
        broken = record.memo(broken_samples)
        remedies = tuple(advice(record, spikes, broken))
        harmless = any(r.already_in_use for r in remedies) and (broken is None or broken.share < self.common)
        n = len(spikes)
        return self.diagnose(
            f"{story(spikes)}; {told.summary}",
            severity=Severity.INFO if harmless else self.severity,
            margin=float(np.clip(min(np.log(times), n - self.count + 1), 0, 1e3)),
            onset_step=int(spikes.steps[0]),
            evidence=(*heights_told(spikes, self.count, self.height), *told.evidence),
            remedies=remedies,
        )
