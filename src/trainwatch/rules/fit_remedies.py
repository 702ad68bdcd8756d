"""Remedies that more or less of a regulariser makes: less of what holds a network back, more where nothing does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.inventory import inventory
from trainwatch.symptoms.losses import penalty_share
from trainwatch.symptoms.restraints import MODERATE, USUAL


def loosened(record: RunRecord, name: str) -> Iterator[Remedy]:
    """The remedies that loosen ``dropout`` or ``weight_decay`` at its strongest, or a ``penalty``."""
    if name == "penalty":
        yield remedy("weaker-penalty", share=record.memo(penalty_share))
    facts: Any = record.facts.get("regularisation") or {}
    if name == "dropout" and facts.get("dropout"):
        p = max(float(layer["p"]) for layer in facts["dropout"])
        where = ", ".join(layer["name"] for layer in facts["dropout"] if float(layer["p"]) == p)
        proposed = MODERATE if p > MODERATE else round(p / 2, 2)
        yield remedy("less-dropout", present=p, proposed=proposed, kept=1 - p, where=where)
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


def stronger_regularisation(record: RunRecord) -> Remedy:
    """The remedy `stronger-regularisation` with the present and a proposed weight decay."""
    present = float(record.facts.get("regularisation", {}).get("weight_decay") or 0.0)
    return remedy(
        "stronger-regularisation",
        already_in_use=present > 0 or not record.memo(inventory).keys().isdisjoint(("L1", "L2")),
        present=present,
        proposed=min(3 * present, 0.5) if present else 0.01,
        next_step="# In use already: next, try three times as much." if present else "# Not in use yet.",
    )
