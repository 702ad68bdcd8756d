"""TW302: the gradient is amplified on its way back, or grows out of all proportion, and the loss shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Rule, not_later
from trainwatch.symptoms.gradients import (
    Growth,
    Signal,
    backward_signal,
    gradients_of,
    growth_of,
    largest_update,
    learning_rate,
    weight_gain,
)
from trainwatch.symptoms.losses import LossCourse, loss_course

RECURRENT = ("RNN", "RNNCell")
GROWTH_ERROR = 0.3  # decades: scatter of single norms in sound runs


@dataclass(frozen=True)
class ExplodingGradients(Rule):
    """The gradient is amplified from layer to layer, or bursts out of its own history, and the run does not get better.

    ## Symptom
    The gradient grows from layer to layer on its way back, by `decades` powers of ten or more in the very first step;
    or its norm rises to `growth` times the median of all norms before.

    ## Why it hurts
    One step along such a gradient throws the first layers far away; what was learned is lost, or the weights overflow.

    ## How it is measured
    RMS gradient of each bias (of each weight, where layers have no bias) by depth in order of execution, a robust line
    through its logarithm at the first step: no update can be blamed for that. And the norm of all gradients against
    its own past; absolute norms mean nothing, since they scale with the loss, the batch and the data. Fires only with
    harm: less than `learned` of the loss of chance (else of the first loss) is gone at the end, or `relapse` of the
    best gain is lost again, or the loss is not finite.

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
    explains: ClassVar[Any] = {"TW303": not_later}

    decades: float = 2.0
    growth: float = 100.0
    learned: float = 0.1
    relapse: float = 0.7
    proposed_update: float = 0.01
    min_steps: int = 30

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
        signal, growth = record.memo(backward_signal), growth_of(gradients, self.growth)
        if signal is not None and signal.decades[0] >= self.decades:
            yield self._amplified(record, course, signal, harm)
        elif growth is not None:
            yield self._grown(record, course, growth, harm)

    def _amplified(self, record: RunRecord, course: LossCourse, signal: Signal, harm: float) -> Diagnosis:
        first, last, step = signal.parameters[0]["module"], signal.parameters[-1]["module"], int(signal.steps[0])
        ratio = 10 ** float(signal.decades[0])
        rise = signal.log_rms[0] - signal.log_rms[0][-1]
        places = [p["module"] for p, r in zip(signal.parameters, rise, strict=True) if r >= self.decades] or [first]
        return self.diagnose(
            f"Before any update the gradient of '{first}' is {ratio:.2g} times that of '{last}', "
            f"and the loss is no better for training: {course.story}",
            margin=min(harm, (float(signal.decades[0]) - self.decades) / signal.error),
            where=tuple(dict.fromkeys(places)),
            onset_step=step,
            evidence=(
                Evidence(
                    "gradient of the first layer over the last",
                    ratio,
                    10**self.decades,
                    where=first,
                    step=step,
                    note=f"RMS gradient of each {signal.kind}, {signal.layers} of them",
                ),
                _end(course, self.learned),
            ),
            remedies=tuple(self._remedies(record, step, signal)),
        )

    def _grown(self, record: RunRecord, course: LossCourse, growth: Growth, harm: float) -> Diagnosis:
        return self.diagnose(
            f"At step {growth.step} the gradient's norm is {growth.factor:.2g} times its median until then, "
            f"and the loss is no better for training: {course.story}",
            margin=min(harm, float(np.log10(growth.factor / self.growth)) / GROWTH_ERROR),
            onset_step=growth.step,
            evidence=(
                Evidence(
                    "gradient norm over its median before",
                    growth.factor,
                    self.growth,
                    step=growth.step,
                    note=f"{growth.largest:.2g} at most",
                ),
                _end(course, self.learned),
            ),
            remedies=tuple(self._remedies(record, growth.step, None)),
        )

    def _remedies(self, record: RunRecord, step: int, signal: Signal | None) -> Iterator[Remedy]:
        gradients = record.memo(gradients_of)
        assert gradients is not None
        before = max(step - 1, 0)
        gain, rate = weight_gain(record), learning_rate(record, before)
        _, ratio = largest_update(record, before, before) or (before, None)
        factor = f"{signal.factor:.2g}" if signal is not None else ""
        chain = {p["module"]: p for p in signal.parameters[:-1]} if signal is not None else {}
        plain = [(name, p["shape"][0]) for name, p in chain.items() if p["module_type"] == "Linear"]
        if signal is not None and gain is not None and plain:
            layers = [name for name, _ in plain]
            yield remedy("initialisation", gain=f"{gain / signal.factor:.2g}", factor=factor, layers=layers)
        cap, reason = gradients.typical_before(step), f"Nine in ten norms before step {step} were below it."
        if cap is None:
            of = self.proposed_update / ratio if ratio else 1.0
            cap = float(gradients.total[0]) * min(of, 1.0) if np.isfinite(gradients.total[0]) else 1.0
            reason = (
                f"No norm was sane; by this cap the first update is at most {self.proposed_update:.0%} of the weights."
            )
        in_use = bool(record.facts.get("regularisation", {}).get("clipping"))
        yield remedy("gradient-clipping", already_in_use=in_use, max_norm=f"{cap:.2g}", reason=reason)
        # Where the gradient is off by more than that, no learning rate is a cure.
        if ratio is not None and self.proposed_update < ratio < 1e3 * self.proposed_update:
            reason = f"The update at step {before} was {ratio:.2g} times as long as the weights."
            proposed, kind = f"{rate * self.proposed_update / ratio:.1g}", gradients.optimizer["type"]
            yield remedy("lower-learning-rate", present=f"{rate:.3g}", proposed=proposed, optimizer=kind, reason=reason)
        for cell in [p for p in record.facts["parameters"] if p["module_type"] in RECURRENT][:1]:
            sizes = {"inputs": cell["shape"][-1], "hidden": cell["shape"][0]}  # the first tensor is input to hidden
            yield remedy("lstm-gating", module=cell["module"], type=cell["module_type"], **sizes)
        if plain:
            yield remedy("layer-norm", count=len(plain), module="LayerNorm", layers=plain, factor=factor)


def _end(course: LossCourse, learned: float) -> Evidence:
    bound = course.reference - learned * abs(course.reference)
    return Evidence("loss at the end", course.end, bound, where=course.stream, note=course.story)
