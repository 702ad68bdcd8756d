"""How open gates stand, and how sharp attention is: of recurrent cells, of products, of softmaxes (§12)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from trainwatch.probes import recurrent
from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.listening import Call, named_calls, step_by_step
from trainwatch.probes.products import ProductListener
from trainwatch.probes.rows import Rows

KIND = "gates"
QUANTITIES = ("gates", "attention")
STEPS = 3  # a few forward passes, with all that hooks see
MOST_SITES = 256
NEAR = 0.02  # of 0 or of 1: a gate that is as good as shut, or open


@dataclass
class Gate:
    """One gate, summed up over batches.

    Attributes:
        kind: ``lstm``, ``gru``, ``glu`` or ``product``.
        module: The recurrent module, or the innermost one that the gate's function was called in.
        function: ``forget``, ``sigmoid`` ...
        layer: The layer whose output the function was given, where there is just that layer before it.
        activations: Its names among the activations of a pass.
        steps: Most steps of time that one sequence had.
        lowest, highest: Over all entries of each unit, shape (units,).
        low, high, total: Entries near 0, near 1, and the sum of all.
        entries: Entries of each unit: samples times positions.
    """

    kind: str
    module: str
    function: str
    layer: str = ""
    activations: list[str] = field(default_factory=list)
    steps: int = 1
    lowest: torch.Tensor | None = None
    highest: torch.Tensor | None = None
    low: torch.Tensor | float = 0.0
    high: torch.Tensor | float = 0.0
    total: torch.Tensor | float = 0.0
    entries: int = 0

    def add(self, values: torch.Tensor, steps: int = 1) -> None:
        """Take in values of shape (..., units); of a tanh the sign does not matter."""
        rows = values.detach().reshape(-1, values.shape[-1]).float().abs()
        lowest, highest = rows.amin(0), rows.amax(0)
        if self.lowest is not None and self.highest is not None:
            if self.lowest.shape != lowest.shape:
                return  # called with another width: not the same units
            lowest, highest = torch.minimum(lowest, self.lowest), torch.maximum(highest, self.highest)
        self.lowest, self.highest = lowest, highest
        self.low = self.low + (rows < NEAR).float().mean() * len(rows)
        self.high = self.high + (rows > 1 - NEAR).float().mean() * len(rows)
        self.total = self.total + rows.mean() * len(rows)
        self.entries += len(rows)
        self.steps = max(self.steps, steps)

    def row(self) -> torch.Tensor:
        """(share of units that are always shut, always open, of entries near 0, near 1, mean, entries, units).

        A unit is always shut if all the steps of a sequence together could not open it by one: slow gates of a long
        memory are not.
        """
        assert self.lowest is not None
        assert self.highest is not None
        near = min(NEAR, 1 / self.steps)
        parts: list[Any] = [
            (self.highest < near).float().mean(),
            (self.lowest > 1 - near).float().mean(),
            self.low / self.entries,
            self.high / self.entries,
            self.total / self.entries,
            float(self.entries),
            float(len(self.lowest)),
        ]
        device = self.lowest.device
        return torch.stack([torch.as_tensor(p, dtype=torch.float32, device=device) for p in parts])


def measure(bench: Bench) -> None:
    """Run the held training batches through a copy in evaluation mode and record each gate and each attention."""
    batches = bench.enough("train")
    with bench.model(finite=False) as model, torch.no_grad():
        found = gates(model, batches)
    facts: dict[str, dict[str, Any]] = {}
    for order, (name, site) in enumerate(found.sites.items()):
        row = site.row().cpu().numpy().astype(np.float64)
        if isinstance(site, Rows):
            bench.record.append("attention", name, bench.step, row)
            facts[name] = {"module": found.modules[name], "kind": "attention", "order": order}
        else:
            bench.record.append("gates", name, bench.step, row)
            facts[name] = {
                "module": site.module, "kind": site.kind, "function": site.function, "layer": site.layer,
                "activations": site.activations, "order": order,
            }  # fmt: skip
    for name, reason in found.refused.items():
        facts[name] = {"module": name, "kind": "unknown", "reason": reason, "order": len(facts)}
    bench.record.set_fact("gates", facts)


class Found:
    """The gates and attentions of a model by name, in order of execution.

    Attributes:
        sites: Those measured.
        modules: Name -> module, of attentions.
        refused: Recurrent modules whose gates cannot be computed again -> why.
    """

    def __init__(self) -> None:
        self.sites: dict[str, Gate | Rows] = {}
        self.modules: dict[str, str] = {}
        self.refused: dict[str, str] = {}

    def gate(self, call: Call, function: str, values: torch.Tensor, layer: str, activation: str) -> None:
        """Take in a gate of a product."""
        call.counts[function] += 1
        n = call.counts[function]
        name = f"{call.name or 'model'}:{function}" + (f"#{n}" if n > 1 else "")
        site = self._site(name, Gate("glu" if function == "glu" else "product", call.name, function, layer))
        if isinstance(site, Gate):
            site.add(values)
            if activation and activation not in site.activations:
                site.activations.append(activation)

    def attention(self, call: Call, function: str, rows: Rows) -> None:
        """Take in the rows of an attention."""
        call.counts[function] += 1
        n = call.counts[function]
        name = f"{call.name or 'model'}:{function}" + (f"#{n}" if n > 1 else "")
        self.modules[name] = call.name
        site = self._site(name, rows)
        if isinstance(site, Rows) and site is not rows:
            site.add(rows)

    def cell(self, name: str, module: nn.Module, calls: Sequence[recurrent.Given]) -> None:
        """Take in the gates of a recurrent module, computed again from what its calls in a pass were given."""
        steps = sum(seen.length for seen in calls)  # one call may go on where the last ended
        kind = "lstm" if isinstance(module, (nn.LSTM, nn.LSTMCell)) else "gru"
        for seen in calls:
            for gate, values in recurrent.run(module, seen)[1].items():
                site = self._site(f"{name or 'model'}:{gate}", Gate(kind, name, gate.partition("_")[0]))
                if isinstance(site, Gate):
                    site.add(values, steps)

    def _site(self, name: str, new: Gate | Rows) -> Gate | Rows | None:
        if name not in self.sites and len(self.sites) < MOST_SITES:
            self.sites[name] = new
        return self.sites.get(name)


def gates(model: nn.Module, batches: Sequence[Batch]) -> Found:
    """The gates and attentions of a model on some batches."""
    found = Found()
    constants = list(chain(model.parameters(), model.buffers()))
    for batch in batches:
        with (
            step_by_step(),
            _given_to_cells(model, found) as cells,
            named_calls(model) as running,
            ProductListener(running.path, constants, found),
        ):
            batch.predict(model)
        for name, calls in cells.items():
            found.cell(name, model.get_submodule(name), calls)
    return found


@contextmanager
def _given_to_cells(model: nn.Module, found: Found) -> Iterator[dict[str, list[recurrent.Given]]]:
    """What the first calls of each gated recurrent module are given."""
    seen: dict[str, list[recurrent.Given]] = {}
    handles = []

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls = seen.setdefault(name, [])
        if len(calls) < recurrent.STEPS:
            calls.append(recurrent.given(module, args, kwargs))
        else:
            calls[-1].length += 1

    for name, module in model.named_modules():
        if not isinstance(module, recurrent.GATED):
            continue
        reason = recurrent.why_not(module)
        if reason is not None:
            found.refused[name] = reason
            continue
        handles.append(
            module.register_forward_pre_hook(
                lambda m, args, kwargs, name=name: note(name, m, args, kwargs), with_kwargs=True
            )
        )
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
