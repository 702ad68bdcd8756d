"""Remedies that more or less of a regulariser makes: less of what holds a network back, more where nothing does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.depth_remedies import NORMALISATION
from trainwatch.symptoms.gradients import backward_signal
from trainwatch.symptoms.inventory import inventory, proximal_steps
from trainwatch.symptoms.losses import penalty_share
from trainwatch.symptoms.restraints import MODERATE, USUAL
from trainwatch.symptoms.stability import importance, small_changes
from trainwatch.symptoms.votes import told

FEW_INPUTS = 0.3  # of all: L1 selects, where so few make up most of what the loss hangs on
ALIKE = 0.7  # correlation: of inputs that say the same L1 keeps one by chance
DRIFT = 1.0  # decades over depth


def loosened(record: RunRecord, name: str) -> Iterator[Remedy]:
    """The remedies that loosen ``dropout``, ``weight_decay`` or ``proximal`` steps, or a ``penalty``."""
    if name == "penalty":
        yield remedy("weaker-penalty", share=record.memo(penalty_share))
    if name == "proximal" and (steps := proximal_steps(record)):
        yield remedy("weaker-proximal-step", present=max(steps.values()), proposed=max(steps.values()) / 10)
    facts: Any = record.facts.get("regularisation") or {}
    if name == "dropout" and facts.get("dropout"):
        p = max(float(layer["p"]) for layer in facts["dropout"])
        where = ", ".join(layer["name"] for layer in facts["dropout"] if float(layer["p"]) == p)
        proposed = MODERATE if p > MODERATE else round(p / 2, 2)
        yield remedy("less-dropout", present=p, proposed=proposed, kept=1 - p, where=where, measured=told(record))
    if name != "weight_decay":
        return
    optimizers = record.facts.get("optimizers", {}).values()
    groups: list[tuple[float, dict[str, Any], str]] = [
        (float(g.get("weight_decay") or 0.0), g, o["type"]) for o in optimizers for g in o["groups"]
    ]
    present, group, kind = max(groups, key=lambda one: one[0], default=(0.0, {}, ""))
    if present:
        usual = USUAL[bool(group.get("decoupled_weight_decay"))]
        proposed = usual if present > usual else present / 10
        yield remedy("weaker-regularisation", present=present, proposed=proposed, optimizer=kind)


def sizes(record: RunRecord) -> tuple[int, int]:
    """Training samples and trainable parameters, 0 where unknown."""
    counts = (int(p["numel"]) for p in record.facts.get("parameters", ()) if p.get("trainable", True))
    return int(record.facts.get("run", {}).get("train_samples") or 0), sum(counts)


def per_sample(parameters: int, samples: int) -> str:
    """How many parameters there are for each training sample, in words; the samples where none is known."""
    if not parameters:
        return f"{samples} samples"
    ratio = parameters / samples
    return f"{f'{ratio:,.0f}' if ratio >= 100 else f'{ratio:.3g}'} parameters per training sample"


def label_smoothing(record: RunRecord) -> Remedy:
    """The remedy `label-smoothing`: present and proposed."""
    present = float(record.facts.get("regularisation", {}).get("label_smoothing") or 0.0)
    return remedy(
        "label-smoothing",
        already_in_use=present > 0,
        present=present,
        proposed=min(2 * present, 0.3) if present else 0.1,
        next_step="# In use already: next, raise it." if present else "# Not in use yet.",
    )


def stronger_regularisation(record: RunRecord) -> Remedy:
    """The remedy `stronger-regularisation`: present and proposed weight decay, and whether L1 would fit better."""
    present = float(record.facts.get("regularisation", {}).get("weight_decay") or 0.0)
    return remedy(
        "stronger-regularisation",
        already_in_use=present > 0 or not record.memo(inventory).keys().isdisjoint(("L1", "L2")),
        present=present,
        proposed=min(3 * present, 0.5) if present else 0.01,
        next_step="# In use already: next, try three times as much." if present else "# Not in use yet.",
        **_l1_or_l2(record),
    )


def _l1_or_l2(record: RunRecord) -> dict[str, str]:
    """Which of both fits, by how few of the inputs the loss hangs on and how alike those are (§8, §16)."""
    found = record.memo(importance)
    if found is None:
        return {"kind": "Whether L1 would fit better: not measured.", "selection": ""}
    said = f"{found.needed} of {found.inputs} inputs make up 90 % of what shuffling them costs {found.samples} samples"
    if found.share > FEW_INPUTS:
        return {"kind": f"L2 (decay) rather than L1: {said}, so many matter.", "selection": ""}
    line = "\ntrainwatch.prox(optimizer, l1=1e-4)  # "
    if found.alike > ALIKE:
        said += f", and each is like another of them (correlation {found.alike:.2f}): L1 alone would keep one by chance"
        return {"kind": f"L1 together with L2 (elastic net): {said}.", "selection": f"{line}beside a mild decay"}
    return {"kind": f"L1 rather than L2: {said}.", "selection": f"{line}instead of decay; tune it on validation loss"}


def adversarial(record: RunRecord) -> Iterator[Remedy]:
    """The remedy `adversarial-training`, where a small step against the loss was seen to cost more than noise does."""
    found = record.memo(small_changes)
    if found is None:
        return
    rise = found.against - found.loss
    if rise > max(2 * found.against_error, found.noisy - found.loss):
        levels: dict[str, Any] = {"before": found.loss, "after": found.against, "noise": found.noisy}
        yield remedy("adversarial-training", size=found.size, **levels)


def normalisation(record: RunRecord) -> Iterator[Remedy]:
    """The remedy `normalisation`, where no layer normalises and the gradient changes with depth by a factor of ten."""
    signal = record.memo(backward_signal)
    if signal is None:
        return
    known = signal.decades[np.isfinite(signal.decades)]
    if not len(known) or abs(known[-1]) < DRIFT:
        return
    drift = f"the gradient of the first layer is {10 ** known[-1]:.2g} times that of the last"
    yield from normalise(record, signal.parameters[:-1], drift)


def last_weight(record: RunRecord) -> dict[str, Any] | None:
    """Facts of the weight that is used last; None where there is none."""
    weights = [p for p in record.facts.get("parameters", ()) if len(p["shape"]) > 1]
    return max(weights, key=lambda p: int(p.get("order") or 0), default=None)


def normalise(record: RunRecord, weights: Iterable[dict[str, Any]], drift: str) -> Iterator[Remedy]:
    """The remedy `normalisation` behind the layers of some weights, where nothing normalises yet."""
    sizes = {p["module"]: (p["module_type"], p["shape"][0]) for p in weights if p.get("module_type") in NORMALISATION}
    if sizes and not (record.facts.get("regularisation") or {}).get("normalisation"):
        module = NORMALISATION[next(iter(sizes.values()))[0]]
        layers = [(name, width) for name, (kind, width) in sizes.items() if NORMALISATION[kind] == module]
        yield remedy("normalisation", count=len(layers), module=module, layers=layers, drift=drift)
