"""TW704: gradients pile up from step to step, or are thrown away before the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, always

EFFECTS = ("TW101", "TW102", "TW201", "TW202", "TW203", "TW204", "TW205", "TW206", "TW208", "TW301", "TW302", "TW303",
           "TW304", "TW305", "TW306", "TW401", "TW402", "TW403", "TW601", "TW602", "TW603", "TW604")  # fmt: skip


@dataclass(frozen=True)
class GradientsNotZeroed(Rule):
    """The optimiser steps along gradients that are not those of its batch.

    ## Symptom
    Before more than `share` of the steps (of at least `steps`) nothing zeroed the gradients since the step before; or
    they were emptied after the backward pass and before the step.

    ## Why it hurts
    `backward()` adds to what is there. Without zeroing every step follows the sum of all gradients so far: like a
    momentum that never forgets, it overshoots, oscillates and often diverges. Emptied too late, they leave the
    optimiser with nothing to apply: the weights stay as they are.

    ## How it is measured
    One gradient an optimiser is followed: the same tensor in the same version when a backward pass begins, as when
    the optimiser stepped, was not zeroed. At a few such steps its values are looked at, so that zeroing through
    `.data`, which leaves no version, counts too. `grad_norm` shows how the sum has grown.

    ## Remedies
    `zero-gradients` before each backward pass, or `step-before-zeroing`.

    ## Not a fault when
    Gradients are accumulated over several backward passes on purpose: they are zeroed after each step then. Gradients
    that another model's loss leaves behind count only if they are still there at the next step of their own optimiser.

    ## Sources
    §6; documentation of `torch.optim.Optimizer.zero_grad`; Humbatova et al., "Taxonomy of real faults in deep learning
    systems" (2020).
    """

    code = "TW704"
    name = "gradients-not-zeroed"
    severity = Severity.ERROR
    section = "§6"
    at_first_look = True
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    share: float = 0.5
    steps: int = 4

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        followed = record.facts.get("zeroing")
        if not followed or not any(known["cycles"] for known in followed.values()):
            raise NotChecked("no two steps were seen whose gradients could be followed")
        for key, known in followed.items():
            cycles = known["cycles"]
            if cycles < self.steps:
                continue
            if known["kept"] > self.share * cycles and known["nonzero"] > self.share * known["looked"]:
                yield self._kept(record, key, known)
            elif known["emptied"] > self.share * cycles:
                yield self._emptied(key, known)

    def _kept(self, record: RunRecord, key: str, known: dict[str, Any]) -> Diagnosis:
        kept, cycles = known["kept"], known["cycles"]
        return self.diagnose(
            f"gradients were not zeroed before {kept} of {cycles} steps{_of(key)}: each step follows the sum of all "
            "gradients since",
            margin=float("inf"),
            where=(key,),
            onset_step=known["first"],
            evidence=(
                Evidence("share of steps on unzeroed gradients", kept / cycles, threshold=self.share, where=key,
                         step=known["first"], note=f"not zero at {known['nonzero']} of {known['looked']} looks"),
                _growth(record, key),
            ),
            remedies=(remedy("zero-gradients", steps=kept, of=cycles, optimizer=_variable(key)),),
        )  # fmt: skip

    def _emptied(self, key: str, known: dict[str, Any]) -> Diagnosis:
        emptied, cycles = known["emptied"], known["cycles"]
        return self.diagnose(
            f"gradients were gone at {emptied} of {cycles + 1} steps{_of(key)}: they are zeroed between backward() and "
            "step(), which then changes nothing",
            margin=float("inf"),
            where=(key,),
            onset_step=known["first"],
            evidence=(
                Evidence("share of steps without a gradient", min(emptied / cycles, 1.0), threshold=self.share,
                         where=key, step=known["first"]),
            ),
            remedies=(remedy("step-before-zeroing", steps=emptied, optimizer=_variable(key)),),
        )  # fmt: skip


def _growth(record: RunRecord, key: str) -> Evidence:
    """How the norm of the whole gradient changed; by itself it may grow or shrink."""
    name = "norm of the gradient at the end over that of the first step"
    series = record.series("grad_norm", key)
    if series is None or not len(series):
        return Evidence(name, where=key, note="not measured")
    steps, norms = series.history()
    whole = np.sqrt(np.nansum(np.square(norms.astype(float)), axis=1))
    tail = whole[-max(len(whole) // 10, 1) :]
    if not whole[0] > 0 or not np.isfinite(whole[0]):
        return Evidence(name, where=key, note="the first one was zero or not finite")
    return Evidence(name, float(np.median(tail) / whole[0]), where=key, step=int(steps[-1]))


def _of(key: str) -> str:
    return "" if key == "default" else f" of {key!r}"


def _variable(key: str) -> str:
    return "optimizer" if key == "default" else f"optimizer_{key}"
