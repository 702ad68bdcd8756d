"""Remedies for gates that are stuck and attention that has run into one entry (TW306)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.gates import Attention, Gate
from trainwatch.symptoms.gradients import gain_of

CHUNKS = {"lstm": ("input", "forget", "cell", "output"), "gru": ("reset", "update", "new")}  # of torch's biases
GOOD = {"forget": 1.0}  # bias that a gate may begin with; the others at 0
NORMALISED = {"Linear": "LayerNorm", "Conv1d": "InstanceNorm1d", "Conv2d": "InstanceNorm2d"}


def for_gate(record: RunRecord, gate: Gate, *, flat: bool) -> Iterator[Remedy]:
    """For the gate that is stuck most.

    Args:
        record: The run.
        gate: Which one.
        flat: Its entries lie at either end, which is the doing of its weights rather than of its bias.
    """
    if gate.recurrent and not flat:
        yield from _bias(record, gate)
    layer = gate.module if gate.recurrent else gate.layer
    weights = _weights(record, layer)
    if weights:
        yield _smaller(layer, weights, f"Of the entries of '{gate.site}' {gate.extreme:.0%} have next to no slope")
    owner = weights[0] if weights else None
    if owner is not None and not gate.recurrent and owner["module_type"] in NORMALISED:
        width, norm = owner["shape"][0], NORMALISED[owner["module_type"]]
        reason = f"It keeps what the gate is given near 0, where it has a slope; {gate.low:.0%} of it are near 0 now."
        yield remedy("layer-norm", count=1, module=norm, layers=[(layer, width)], reason=reason)


def for_attention(record: RunRecord, attention: Attention) -> Iterator[Remedy]:
    """For the attention that is sharp in most rows."""
    yield remedy("qk-norm", module=attention.module or "model", share=f"{attention.sharp:.0%}")
    weights = _weights(record, attention.module)
    if weights:
        reason = f"The largest weight of a row of '{attention.site}' is {attention.largest:.2g} on average"
        yield _smaller(attention.module, weights, reason)


def _bias(record: RunRecord, gate: Gate) -> Iterator[Remedy]:
    order = CHUNKS[gate.kind]
    names = [p["name"] for p in record.facts.get("parameters", ()) if p["module"] == gate.module]
    names = [n for n in names if n.rpartition(".")[2] in (f"bias_ih{gate.place}", f"bias_hh{gate.place}")]
    if names:
        at = order.index(gate.function)
        yield remedy("forget-gate-bias", gate=gate.function, module=gate.module or "model", names=names,
                     value=GOOD.get(gate.function, 0.0), mean=f"{gate.mean:.2g}", order=", ".join(order),
                     start=at * gate.units, end=(at + 1) * gate.units)  # fmt: skip


def _weights(record: RunRecord, module: str) -> list[dict[str, Any]]:
    """Weights that a module itself owns, with what they were at the start."""
    known = record.facts.get("parameters", ())
    return [p for p in known if p["module"] == module and len(p["shape"]) > 1 and "std" in p]


def _smaller(layer: str, weights: list[dict[str, Any]], what: str) -> Remedy:
    gain = max(map(gain_of, weights))
    reason = f"{what}; its weights began with a gain of {gain:.3g} (deviation times the root of the fan-in)."
    return remedy("initialisation", gain=1, reason=reason, layers=[layer], purpose="anew")
