"""TW301: the gradient dies out on its way back to the first layers, and the net does not learn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Rule
from trainwatch.symptoms.gradients import Signal, backward_signal, gradients_of, weight_gain
from trainwatch.symptoms.losses import loss_course

SQUASHING = ("Sigmoid", "Tanh", "LogSigmoid", "Softsign", "Hardsigmoid", "Hardtanh")
RECURRENT = ("RNN", "RNNCell")
NORMALISATION = {"Linear": "BatchNorm1d", "Conv1d": "BatchNorm1d", "Conv2d": "BatchNorm2d", "Conv3d": "BatchNorm3d"}


@dataclass(frozen=True)
class VanishingGradients(Rule):
    """The first layers get next to no gradient, and the loss has not left the level of a constant guess.

    ## Symptom
    The gradient shrinks from layer to layer on its way back, by powers of ten, from the first step on and to the end.

    ## Why it hurts
    Layers near the output learn, the first stay where they began: a deep net is in effect a shallow one on random
    features. An adaptive optimiser moves the first layers nonetheless, but by noise.

    ## How it is measured
    RMS gradient of each bias (of each weight, where layers have no bias) by depth in order of execution, a robust line
    through its logarithm. Fires after `min_steps` where the line falls by `decades` at the first step, at the last,
    and in `sustained` of the run, where `steady` of neighbouring layers fall with it, and where less than `learned` of
    the loss is gone: of the loss of chance where the criterion tells, else of the loss after the first tenth.

    ## Remedies
    `relu-family`, `batch-norm`, `residual`, `initialisation`, `lstm-gating`, `pretrain-finetune`.

    ## Not a fault when
    The net learns: a steep profile at the start often levels out. Small gradients of a converged run are small in all
    layers. Layers whose gradient is exactly zero are dead or cut off, which is another fault.

    ## Sources
    §9; Hochreiter 1991; Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks".
    """

    code: ClassVar[str] = "TW301"
    name: ClassVar[str] = "vanishing-gradients"
    section: ClassVar[str] = "§9"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "grad_norm")

    decades: float = 3.0
    steady: float = 0.7
    sustained: float = 0.75
    learned: float = 0.1
    min_steps: int = 50

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the first layers with the last, and the loss with what no learning gives."""
        course, signal = record.memo(loss_course), record.memo(backward_signal)
        if record.memo(gradients_of) is None or course is None:
            raise NotChecked("several optimisers: their losses have no common course")
        if signal is None:
            raise NotChecked("fewer than three layers in a row have a gradient")
        if len(course) < self.min_steps:
            raise NotChecked(f"only {len(course)} steps were seen; {self.min_steps} are needed")
        falls = (signal.decades <= -self.decades) & (signal.steady >= self.steady)
        seen = falls[np.isfinite(signal.decades)]  # a block whose layers are dead or cut off says nothing
        lasting = len(seen) > len(falls) / 2 and falls[0] and seen[-1] and seen.mean() >= self.sustained
        if not lasting or not -np.inf < course.learned < self.learned:
            return
        measured = float(np.nanmedian(signal.decades))
        margin = min(
            (-measured - self.decades) / signal.error,
            (self.learned - course.learned) / course.gained_error,
        )
        starved = _starved(signal, self.decades)
        first, last = signal.parameters[0]["module"], signal.parameters[-1]["module"]
        goal = f"chance is {course.chance:.3g}" if course.chance is not None else f"it began at {course.start:.3g}"
        yield self.diagnose(
            f"The gradient of '{first}' is {10**measured:.1g} times that of '{last}', {signal.factor:.2g} a layer, "
            f"and the loss has not learned: {course.end:.3g} at the end, {goal}",
            margin=margin,
            where=tuple(dict.fromkeys(p["module"] for p in starved)),
            onset_step=int(signal.steps[0]),
            evidence=(
                Evidence(
                    "gradient of the first layer over the last",
                    10**measured,
                    10**-self.decades,
                    where=first,
                    step=int(signal.steps[0]),
                    note=f"RMS gradient of each {signal.kind}; median over the run",
                ),
                Evidence(
                    "share of the loss learned",
                    course.learned,
                    self.learned,
                    where=course.stream,
                    step=int(course.steps[-1]),
                    note=goal,
                ),
                Evidence("factor per layer", signal.factor, step=int(signal.steps[0]), note=f"{signal.layers} layers"),
            ),
            remedies=tuple(_remedies(record, signal, starved)),
        )


def _starved(signal: Signal, decades: float) -> list[dict[str, Any]]:
    """Parameters whose gradient is below that of the largest by the threshold, the first layer first."""
    depth = signal.log_rms[0] - np.nanmax(signal.log_rms[0])
    return [p for p, fall in zip(signal.parameters, depth, strict=True) if fall <= -decades] or [signal.parameters[0]]


def _remedies(record: RunRecord, signal: Signal, starved: list[dict[str, Any]]) -> Iterator[Remedy]:
    chain = {p["module"]: p for p in signal.parameters[:-1]}
    factor, names = f"{signal.factor:.2g}", list(chain)
    modules = record.facts.get("modules", [])
    last = next((m["order"] for m in modules if m["name"] == signal.parameters[-1]["module"]), len(modules))
    squashing = [m for m in modules if m["type"] in SQUASHING and m["order"] < last]
    if squashing:
        types = " and ".join(dict.fromkeys(m["type"] for m in squashing))
        yield remedy("relu-family", types=types, modules=[m["name"] for m in squashing], factor=factor)
    for cell in [p for p in record.facts["parameters"] if p["module_type"] in RECURRENT][:1]:
        cells = {"inputs": cell["shape"][-1], "hidden": cell["shape"][0]}  # the first tensor is input to hidden
        yield remedy("lstm-gating", module=cell["module"], type=cell["module_type"], **cells)
    plain = {name: p for name, p in chain.items() if p["module_type"] in NORMALISATION}
    if plain:
        norm = NORMALISATION[next(iter(plain.values()))["module_type"]]
        in_use = bool(record.facts.get("regularisation", {}).get("normalisation"))
        sizes = [(name, p["shape"][0]) for name, p in plain.items()]
        yield remedy("batch-norm", already_in_use=in_use, count=len(sizes), module=norm, layers=sizes, factor=factor)
        if (gain := weight_gain(record)) is not None:
            yield remedy("initialisation", gain=f"{gain / signal.factor:.2g}", factor=factor, layers=list(plain))
    ratio = f"{10 ** signal.decades[0]:.1g}"
    yield remedy("residual", first=names[0], last=names[-1], count=len(names), ratio=ratio)
    places = list(dict.fromkeys(p["module"] for p in starved))
    yield remedy("pretrain-finetune", count=len(places), layers=places)
