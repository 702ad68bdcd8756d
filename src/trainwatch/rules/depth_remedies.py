"""Remedies for a signal that fades, grows or is lost on its way through the net (TW301, TW302, TW304, TW305, TW309)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.activity import activities
from trainwatch.symptoms.backward_gain import backward_gain
from trainwatch.symptoms.gradients import SQUASHING, Signal, fan_in, weight_gain
from trainwatch.symptoms.ranges import range_of
from trainwatch.symptoms.tuning import trained_before

RECURRENT = ("RNN", "RNNCell")
STEADY = "It keeps the scale of activations, and so of gradients, from changing with depth or time"
NORMALISATION = {"Linear": "BatchNorm1d", "Conv1d": "BatchNorm1d", "Conv2d": "BatchNorm2d", "Conv3d": "BatchNorm3d"}
UNIT_SCALE = 3.0  # root mean square of inputs
HE = """  # ReLUs want wider weights than sigmoids and tanhs
    layer = model.get_submodule(name)
    nn.init.kaiming_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)"""


def stronger_signal(record: RunRecord, signal: Signal, starved: list[dict[str, Any]]) -> Iterator[Remedy]:
    """For a gradient that fades from layer to layer; `starved` are the parameters that it hardly reaches.

    What mends the activations comes first, unless it was measured that the weights let less through.
    """
    cures, parts = list(_stronger_signal(record, signal, starved)), record.memo(backward_gain)
    if parts is not None and parts.weight < parts.between:
        cures.sort(key=lambda cure: cure.id != "initialisation")
    yield from cures


def _stronger_signal(record: RunRecord, signal: Signal, starved: list[dict[str, Any]]) -> Iterator[Remedy]:
    chain = {p["module"]: p for p in signal.parameters[:-1]}
    factor, names = f"{signal.factor:.2g}", list(chain)
    modules = record.facts.get("modules", [])
    last = next((m["order"] for m in modules if m["name"] == signal.parameters[-1]["module"]), len(modules))
    squashing = [m for m in modules if m["type"] in SQUASHING and m["order"] < last]
    if squashing:
        types = " and ".join(dict.fromkeys(m["type"] for m in squashing))
        reason = f"Here a layer passes back {factor} of the gradient that it gets."
        yield rectified(record, types, [m["name"] for m in squashing], reason)
    yield from gated_cells(record)
    plain = {name: p for name, p in chain.items() if p["module_type"] in NORMALISATION}
    if plain:
        norm = NORMALISATION[next(iter(plain.values()))["module_type"]]
        in_use = bool(record.facts.get("regularisation", {}).get("normalisation"))
        sizes = [(name, p["shape"][0]) for name, p in plain.items()]
        yield remedy("batch-norm", already_in_use=in_use, count=len(sizes), module=norm, layers=sizes, factor=factor)
        if (gain := weight_gain(record)) is not None:
            yield initialise(list(plain), gain, signal.factor)
    ratio = f"{10 ** signal.decades[0]:.1g}"
    yield remedy("residual", first=names[0], last=names[-1], count=len(names), ratio=ratio)
    places = list(dict.fromkeys(p["module"] for p in starved))
    yield remedy("pretrain-finetune", count=len(places), layers=places)


def rectified(record: RunRecord, types: str, modules: list[str], reason: str) -> Remedy:
    """ReLUs in the place of such modules; the hidden layers begin as He has it.

    Not where they were trained before, nor where inputs are far from unit scale, which ReLUs would pass on.
    """
    inputs = range_of(record, "input_stats", "train")
    kept = trained_before(record) or (inputs is not None and inputs.rms > UNIT_SCALE)
    weights = [p for p in record.facts.get("parameters", ()) if p["kind"] == "weight" and p["order"] is not None]
    last = max((p["order"] for p in weights), default=0)
    hidden = [p["module"] for p in weights if p["module_type"] in NORMALISATION and p["order"] < last]
    drawn = f"\nfor name in {hidden}:{HE}" if hidden and not kept else ""
    return remedy("relu-family", types=types, modules=modules, reason=reason, drawn=drawn)


def even_signal(record: RunRecord, signal: Signal) -> Iterator[Remedy]:
    """For a gradient that grows from layer to layer: first what mends the weights, unless the rest was found worse."""
    chain = {p["module"]: p["shape"][0] for p in signal.parameters[:-1] if p["module_type"] == "Linear"}
    gain, parts = weight_gain(record), record.memo(backward_gain)
    if not chain or gain is None:
        return
    reason = f"{STEADY}; now one layer multiplies the gradient by {signal.factor:.2g}."
    norm = remedy("layer-norm", count=len(chain), module="LayerNorm", layers=list(chain.items()), reason=reason)
    cures = [initialise(list(chain), gain, signal.factor), norm]
    yield from reversed(cures) if parts is not None and parts.between > parts.weight else cures


def initialise(layers: list[str], gain: float, factor: float) -> Remedy:
    """A fresh start for layers of a gain each of which changes the gradient by a factor."""
    reason = (
        f"One layer multiplies the gradient by {factor:.2g} from the first step on; it should leave its size as it is."
    )
    return remedy("initialisation", gain=f"{gain / factor:.2g}", reason=reason, layers=layers, purpose="for depth")


def reinitialise(weight: dict[str, Any], variance: float) -> Remedy:
    """A fresh start for a weight, of the given variance of an entry times its fan-in: 2 for ReLUs, 1 for tanhs."""
    inputs = fan_in(weight)
    draw = 'kaiming_normal_(module.weight, nonlinearity="relu")' if variance > 1 else "xavier_normal_(module.weight)"
    return remedy("reinitialise", layer=str(weight["module"] or "model"), present=f"{weight['std']:.3g}",
                  proposed=f"{math.sqrt(variance / inputs):.3g}", fan_in=inputs,
                  draw=f"torch.nn.init.{draw}")  # fmt: skip


def fitting_variance(record: RunRecord) -> float:
    """For `reinitialise`: of a net whose hidden units squash what they are given, or of another."""
    squashing = any(a.squashes for a in record.memo(activities))
    return 1.0 if squashing or any(m["type"] in SQUASHING for m in record.facts.get("modules", ())) else 2.0


def first_weight(record: RunRecord) -> dict[str, Any] | None:
    """Facts of the weight that is used first; None where none was seen at the start."""
    return next(iter(_weights(record)), None)


def odd_weight(record: RunRecord, variance: float) -> dict[str, Any] | None:
    """Facts of the weight whose deviation at the start fits its inputs least, but the last; see `reinitialise`."""
    weights = _weights(record)

    def off(weight: dict[str, Any]) -> float:
        return abs(math.log(max(weight["std"], 1e-30) / math.sqrt(variance / fan_in(weight))))

    return max(weights[: max(1, len(weights) - 1)], key=off, default=None)


def _weights(record: RunRecord) -> list[dict[str, Any]]:
    """Facts of the weights that were seen at the start, in the order in which they are used."""
    weights = [p for p in record.facts.get("parameters", ()) if p["kind"] == "weight" and "std" in p]
    return sorted(weights, key=lambda p: int(p["order"]))


def gated_cells(record: RunRecord) -> Iterator[Remedy]:
    """A gated cell in place of the first plain recurrent one."""
    for cell in [p for p in record.facts["parameters"] if p["module_type"] in RECURRENT][:1]:
        cells = {"inputs": cell["shape"][-1], "hidden": cell["shape"][0]}  # the first tensor is input to hidden
        yield remedy("lstm-gating", module=cell["module"], type=cell["module_type"], **cells)
