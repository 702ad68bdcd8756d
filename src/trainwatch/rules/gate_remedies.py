"""Remedies for gates that are stuck and attention that has run into one entry (TW306)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.gates import Attention, Gate
from trainwatch.symptoms.gradients import gain_of

CHUNKS = {"lstm": ("input", "forget", "cell", "output"), "gru": ("reset", "update", "new")}  # of torch's biases
GOOD = {"forget": 1.0}  # bias that a gate may begin with; the others at 0
NORMALISED = {"Linear": "LayerNorm", "Embedding": "LayerNorm", "Conv1d": "BatchNorm1d", "Conv2d": "BatchNorm2d"}
LARGE = 1.5  # gain of weights that hold a gate at its ends by themselves


def for_gate(record: RunRecord, gate: Gate, *, flat: bool, stuck: Sequence[str] = ()) -> Iterator[Remedy]:
    """For the gate that is stuck most.

    Args:
        record: The run.
        gate: Which one.
        flat: Its entries lie at either end, which is the doing of its weights rather than of its bias.
        stuck: Layers of all gates of products that are stuck; one that stays shut would undo the others' cure.
    """
    layer = gate.module if gate.recurrent else gate.layer
    weights = _weights(record, layer)
    if gate.recurrent and not flat:
        yield from _bias(record, gate)
    if weights and (flat or not gate.recurrent or max(map(gain_of, weights)) > LARGE):
        layers = list(dict.fromkeys([layer, *([] if gate.recurrent else filter(None, stuck))]))
        yield _smaller(layers, weights, f"Of the entries of '{gate.site}' {gate.extreme:.0%} have next to no slope")
    before = _before(record, weights[0]) if weights and gate.recurrent and flat else weights[0] if weights else None
    if before is not None and before["module_type"] in NORMALISED and (flat or not gate.recurrent):
        width = before["shape"][1 if before["module_type"] == "Embedding" else 0]
        reason = (
            f"It keeps what the gate is given near 0, where the gate has a slope; {gate.extreme:.0%} have none now."
        )
        norm = NORMALISED[before["module_type"]]
        yield remedy("layer-norm", count=1, module=norm, layers=[(before["module"], width)], reason=reason)


def for_attention(record: RunRecord, attention: Attention) -> Iterator[Remedy]:
    """For the attention that is sharp in most rows."""
    yield remedy("qk-norm", module=attention.module or "model", share=f"{attention.sharp:.0%}")
    weights = _weights(record, attention.module)
    if weights:
        reason = f"The largest weight of a row of '{attention.site}' is {attention.largest:.2g} on average"
        yield _smaller([attention.module], weights, reason)


def _bias(record: RunRecord, gate: Gate) -> Iterator[Remedy]:
    order = CHUNKS[gate.kind]
    names = [p["name"] for p in record.facts.get("parameters", ()) if p["module"] == gate.module]
    names = [n for n in names if n.rpartition(".")[2] in (f"bias_ih{gate.place}", f"bias_hh{gate.place}")]
    if names:
        at, value = order.index(gate.function), GOOD.get(gate.function, 0.0)
        yield remedy("forget-gate-bias", gate=gate.function, module=gate.module or "model", names=names,
                     value=value, each=value / len(names), mean=f"{gate.mean:.2g}", order=", ".join(order),
                     start=at * gate.units, end=(at + 1) * gate.units)  # fmt: skip


def _before(record: RunRecord, weight: dict[str, Any]) -> dict[str, Any] | None:
    """The weight of the layer that a recurrent one is given the output of, as far as its width shows."""
    earlier = [p for p in record.facts["parameters"] if len(p["shape"]) > 1 and -1 < p["order"] < weight["order"]]
    last = max(earlier, key=lambda p: int(p["order"]), default=None)
    return last if last is not None and weight["shape"][1] in last["shape"] else None


def _weights(record: RunRecord, module: str) -> list[dict[str, Any]]:
    """Weights that a module itself owns, with what they were at the start."""
    known = record.facts.get("parameters", ())
    return [p for p in known if p["module"] == module and len(p["shape"]) > 1 and "std" in p]


def _smaller(layers: list[str], weights: list[dict[str, Any]], what: str) -> Remedy:
    gain = max(map(gain_of, weights))
    reason = f"{what}; its weights began with a gain of {gain:.3g} (deviation times the root of the fan-in)."
    return remedy("initialisation", gain=1, reason=reason, layers=layers, purpose="anew")
