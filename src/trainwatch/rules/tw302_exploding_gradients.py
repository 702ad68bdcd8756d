"""TW302: the gradient is amplified on its way back, or grows out of all proportion, and the loss shows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.backward_parts import parts_shown, parts_wanted
from trainwatch.rules.base import NotChecked, ProbeRequest, Rule, always
from trainwatch.rules.depth_remedies import even_signal, gated_cells
from trainwatch.rules.non_finite_source import grew_from_then
from trainwatch.rules.step_remedies import UPDATE, clipping, shorter_step
from trainwatch.symptoms.gradients import (
    Growth,
    Signal,
    backward_signal,
    gradients_of,
    growth_of,
    largest_update,
    long_steps,
)
from trainwatch.symptoms.losses import LossCourse, loss_course

EFFECTS = ("TW203", "TW204", "TW205", "TW206", "TW208", "TW304", "TW305", "TW306", "TW401", "TW402")
GROWTH_ERROR = 0.3  # decades: scatter of single norms in sound runs


@dataclass(frozen=True)
class ExplodingGradients(Rule):
    """The gradient is amplified from layer to layer, or bursts out of its own history, and the run does not get better.

    ## Symptom
    The gradient grows from layer to layer on its way back by powers of ten, in the very first step; or its norm bursts
    out of all that was seen before.

    ## Why it hurts
    One step along such a gradient throws the first layers far away; what was learned is lost, or the weights overflow.

    ## How it is measured
    RMS gradient of each bias (of each weight, where layers have no bias) by depth in order of execution, a robust line
    through its logarithm at the first step: `decades` up, for which no update can be blamed; `backward_gain`, where a
    probe measured it, tells what weights and what activations do. Else the norm of all gradients against its own past:
    `growth` times; absolute norms mean nothing, since they scale with loss, batch and data. Under SGD, whose step
    follows the gradient, the update must be longer than `update` of the weights: next to a past without any gradient
    the least is large. Fires only with harm, after `min_steps` or a loss that is not finite: at the end less than
    `learned` of the loss of chance (else of the first loss) is gone, or `relapse` of the best gain is lost again.

    ## Remedies
    `initialisation` where it was there from the start; `gradient-clipping`, `lower-learning-rate`, `lstm-gating`,
    `layer-norm`.

    ## Not a fault when
    The loss falls: large norms, and spikes that clipping or the optimiser absorb, do no harm.

    ## Sources
    §9; Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks".
    """

    code: ClassVar[str] = "TW302"
    name: ClassVar[str] = "exploding-gradients"
    severity: ClassVar[Severity] = Severity.ERROR
    section: ClassVar[str] = "§9"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "grad_norm")
    explains: ClassVar[Any] = dict.fromkeys(EFFECTS, always) | {"TW303": grew_from_then}

    decades: float = 2.0
    growth: float = 100.0
    update: float = 0.1
    learned: float = 0.1
    relapse: float = 0.7
    min_steps: int = 30

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Which part of a layer's factor is its weight's."""
        return parts_wanted(record, self.decades, self.learned)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Look at the first backward pass, then at the norm's own history."""
        course, gradients = record.memo(loss_course), record.memo(gradients_of)
        if course is None or gradients is None:
            raise NotChecked("several optimisers: their losses have no common course")
        if np.isfinite(course.values).all() and len(course) < self.min_steps:
            raise NotChecked(f"only {len(course)} steps were seen; {self.min_steps} are needed")
        harm, _ = course.harm(self.learned, self.relapse)
        if harm <= 0:
            return
        signal = record.memo(backward_signal)
        if signal is not None and signal.decades[0] >= self.decades:
            yield self._amplified(record, course, signal, harm)
        elif (growth := growth_of(gradients, self.growth, long_steps(record, self.update))) is not None:
            yield self._grown(record, course, growth, harm)

    def _amplified(self, record: RunRecord, course: LossCourse, signal: Signal, harm: float) -> Diagnosis:
        first, last, step = signal.parameters[0]["module"], signal.parameters[-1]["module"], int(signal.steps[0])
        decades = float(signal.decades[0])
        rise = signal.log_rms[0] - signal.log_rms[0][-1]
        places = [p["module"] for p, r in zip(signal.parameters, rise, strict=True) if r >= self.decades] or [first]
        when = "Before any update" if signal.untouched else "At first"
        note = f"RMS gradient of each {signal.kind}, {signal.layers} of them"
        return self.diagnose(
            f"{when} the gradient of '{first}' is {10**decades:.2g} times that of '{last}', "
            f"and the loss is no better for training: {course.story}",
            margin=min(harm, (decades - self.decades) / signal.error),
            where=tuple(dict.fromkeys(places)),
            onset_step=step,
            evidence=(
                Evidence("first layer over last", 10**decades, 10**self.decades, where=first, step=step, note=note),
                Evidence("loss at the end", course.end, course.bound(self.learned), where=course.stream),
                *parts_shown(record),
            ),
            remedies=(*even_signal(record, signal), *_for_steps(record, step)),
        )

    def _grown(self, record: RunRecord, course: LossCourse, growth: Growth, harm: float) -> Diagnosis:
        return self.diagnose(
            f"At step {growth.step} the gradient's norm is {growth.factor:.2g} times its median until then, "
            f"and the loss is no better for training: {course.story}",
            margin=min(harm, float(np.log10(growth.factor / self.growth)) / GROWTH_ERROR),
            onset_step=growth.step,
            evidence=(
                Evidence("norm over its past median", growth.factor, self.growth, step=growth.step),
                Evidence("loss at the end", course.end, course.bound(self.learned), where=course.stream),
            ),
            remedies=tuple(_for_steps(record, growth.step)),
        )


def _for_steps(record: RunRecord, step: int) -> Iterator[Remedy]:
    gradients = record.memo(gradients_of)
    assert gradients is not None
    before, ratio = largest_update(record, max(step - 1, 0), max(step - 1, 0)) or (step, None)
    cap, reason = gradients.typical_before(step), f"Nine in ten norms before step {step} were below it."
    if cap is None:
        cap = float(gradients.total[0]) * min(UPDATE / ratio if ratio else 1.0, 1.0)
        reason = f"No norm was sane; by this cap the first update is at most {UPDATE:.0%} of the weights."
    if np.isfinite(cap):
        yield clipping(record, cap, reason)
    if ratio is not None and UPDATE < ratio < 1e3 * UPDATE:  # where more is amiss, no learning rate is a cure
        yield shorter_step(record, before, ratio)
    yield from gated_cells(record)
