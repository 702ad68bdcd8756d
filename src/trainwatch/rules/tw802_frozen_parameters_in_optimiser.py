"""TW802: the optimiser holds parameters that are frozen, and may go on moving them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, no_remark, not_later
from trainwatch.symptoms.frozen import FrozenParameter, frozen_parameters

SHOWN = 3
LISTED = 12  # names in code that can be pasted
WHY = {"zero": "a gradient of zero is still there", "stale": "the last gradient is still there, and applied each time"}


def moved_before(cause: Diagnosis, effect: Diagnosis) -> bool:
    """Layers that are moved without their gradient make the loss worse from then on."""
    return no_remark(cause, effect) and not_later(cause, effect)


@dataclass(frozen=True)
class FrozenParametersInOptimiser(Rule):
    """Frozen parameters are in the optimiser, which goes on moving those that still have a gradient.

    ## Symptom
    Parameters that require no gradient are held by the optimiser. A warning where one of them went further than `moved`
    of its length since it was frozen; else a remark.

    ## Why it hurts
    An optimiser of torch passes over a parameter whose gradient is None, and over no other. One that was frozen while
    it had a gradient keeps it: at zero, after `zero_grad(set_to_none=False)`, weight decay, momentum and Adam's moments
    move it on; never zeroed, it is applied at each step. What is taken for the pretrained layer is none any more.

    ## How it is measured
    Whether a parameter requires a gradient is read after each step of its own optimiser. Of a frozen one up to 1,024
    entries are kept, and compared with those later on wherever it still has a gradient: the distance over their length.

    ## Remedies
    `drop-frozen-parameters`: their gradients set to None, an optimiser built from what is trained.

    ## Not a fault when
    They never had a gradient: nothing moves them, and nothing is kept for them. Their gradients change: somebody
    computes them by other means. They move without a gradient, as an average of another network does.

    ## Sources
    §11; documentation of `torch.optim.Optimizer.zero_grad`.
    """

    code: ClassVar[str] = "TW802"
    name: ClassVar[str] = "frozen-parameters-in-optimiser"
    section: ClassVar[str] = "§11"
    at_first_look: ClassVar[bool] = True
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(
        ("TW203", "TW204", "TW402", "TW403", "TW601", "TW603"), moved_before
    )

    moved: float = 0.01

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if "parameters" not in record.facts:
            raise NotChecked("the parameters could not be read (see TW000)")
        held = [p for p in record.memo(frozen_parameters) if p.gradient != "given"]
        if not held:
            return
        moving = sorted((p for p in held if p.gradient in WHY and p.moved > self.moved), key=lambda p: -p.moved)
        count = sum(p.parameter["numel"] for p in held)
        if moving:
            furthest = moving[0]
            summary = (
                f"{_number(moving)} that were frozen from step {furthest.since} on are still moved by the optimiser: "
                f"'{furthest.name}' is {furthest.moved:.2g} of its length away since, as {WHY[furthest.gradient]}"
            )
        else:
            summary = f"{_number(held)} in the optimiser are frozen ({count:,} numbers); it does not move them"
        yield self.diagnose(
            summary,
            margin=float("inf"),  # read off the weights, not inferred
            severity=self.severity if moving else Severity.INFO,
            where=tuple(p.name for p in moving or held),
            onset_step=min(p.since for p in moving or held),
            evidence=tuple(self._evidence(record, moving or held, count)),
            remedies=(remedy("drop-frozen-parameters", count=_number(held), **_code(record, moving or held)),),
        )

    def _evidence(self, record: RunRecord, found: list[FrozenParameter], count: int) -> Iterator[Evidence]:
        for p in found[:SHOWN]:
            known = (f"{name} {p.group[name]:g}" for name in ("weight_decay", "momentum") if p.group.get(name))
            note = ", ".join([WHY.get(p.gradient, "it has no gradient"), f"frozen since step {p.since}", *known])
            name = "distance since it was frozen over length"
            yield Evidence(name, p.moved, self.moved, where=p.name, step=record.steps, note=note)
        yield Evidence("numbers frozen in the optimiser", count, step=record.steps)


def _number(found: list[FrozenParameter]) -> str:
    return f"{len(found)} parameters" if len(found) != 1 else "1 parameter"


def _code(record: RunRecord, found: list[FrozenParameter]) -> dict[str, Any]:
    """Code that lists the parameters, and the optimiser in use."""
    names = [p.name for p in found]
    kind, rate = next((o["type"], o["groups"][0].get("lr")) for o in record.facts["optimizers"].values())
    every = "[name for name, p in model.named_parameters() if not p.requires_grad]"
    lines = f"frozen = {names!r}" if len(names) <= LISTED else f"frozen = {every}"
    return {"lines": lines, "optimizer": kind, "rate": f"{rate or 1e-3:.3g}"}
