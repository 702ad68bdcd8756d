"""What TW309 says of the weights that a run began with."""

from __future__ import annotations

from typing import Any

from trainwatch.diagnosis import Evidence
from trainwatch.record import RunRecord

SHOWN = 3
BOUNDED = ("Softmax", "Sigmoid", "Tanh")  # what a squashed answer is made by


def begins(weights: list[dict[str, Any]], gain: float, limit: float) -> Evidence:
    """The gain of some layers beside its limit."""
    note = "0.58 by torch's default, 1 to 1.4 by Xavier and Kaiming"
    return Evidence(
        "gain: deviation times the root of the fan-in", gain, limit, where=layers(weights), step=0, note=note
    )


def layers(weights: list[dict[str, Any]]) -> str:
    """Some of their layers, in words."""
    names = [str(w["module"] or "model") for w in weights]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def without_bound(record: RunRecord, stream: str) -> bool:
    """A squared error of answers that nothing holds within bounds: the least excess multiplies it."""
    known = record.facts.get("loss", {}).get(stream, {})
    return record.facts.get("task") == "regression" and known.get("last_operation") not in BOUNDED
