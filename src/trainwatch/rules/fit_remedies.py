"""The remedies of TW206: less of the regulariser that holds the network back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.gradients import learning_rate
from trainwatch.symptoms.losses import penalty_share

MODERATE = 0.3  # dropout
USUAL = {True: 0.01, False: 1e-4}  # weight decay: decoupled, or added to the gradient


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
    present, i, kind = 0.0, 0, ""
    chosen: dict[str, Any] = {}
    for optimizer in record.facts.get("optimizers", {}).values():
        for n, group in enumerate(optimizer["groups"]):
            decay = float(group.get("weight_decay") or 0.0)
            if decay > present:
                present, i, chosen, kind = decay, n, group, optimizer["type"]
    if present:
        usual = USUAL[bool(chosen.get("decoupled_weight_decay"))]
        rate = learning_rate(record, 0, i) if record.has("grad_norm") else float(chosen.get("lr") or 0.0)
        proposed = usual if present > usual else present / 10
        yield remedy("weaker-regularisation", present=present, proposed=proposed, optimizer=kind, rate=rate)
