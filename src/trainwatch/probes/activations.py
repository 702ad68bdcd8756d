"""How alive hidden units are: dead and rarely active ones, saturated activations, and their scale (§9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.listening import Call, UnitAxis, named_calls, operation
from trainwatch.symptoms.activity import RECTIFYING, SQUASHING

KIND = "activations"
QUANTITIES = ("activity",)
STEPS = 3  # a few forward passes, with all that hooks see
MOST_SITES = 256
RARE = 0.01  # of the entries: a unit that is active in fewer is rarely active
FLAT = 0.05  # of its steepest slope: where a squashing function is flatter, it is saturated


@dataclass
class Site:
    """One activation function in the forward pass, summed up over batches.

    Attributes:
        module: Name of the innermost module that it was called in.
        function: Its name.
        order: Its rank among the activations of a pass.
        active: Entries of each unit that were active, shape (units,).
        entries: Entries of each unit: samples times positions.
        flat: Entries that were saturated.
        square: Sum of squares of all entries.
        is_output: What it returns is what the loss was given.
    """

    module: str
    function: str
    order: int
    active: torch.Tensor | None = None
    entries: int = 0
    flat: torch.Tensor | float = 0.0
    square: torch.Tensor | float = 0.0
    is_output: bool = False
    last: torch.Tensor | None = field(default=None, repr=False)

    def add(self, output: torch.Tensor, axis: int) -> None:
        """Take in the output of one call.

        Args:
            output: Of any shape with a batch dimension.
            axis: The dimension of the units.
        """
        rows = output.detach().movedim(axis, -1)
        rows = rows.reshape(-1, rows.shape[-1]).float()
        if self.active is None:
            self.active = torch.zeros(rows.shape[1], device=rows.device)
        if self.active.shape != rows.shape[1:]:
            return  # called with another width: not the same units
        self.entries += len(rows)
        self.active += (rows != 0).sum(0)
        slope = 4 * rows * (1 - rows) if self.function == "sigmoid" else 1 - rows.square()
        if self.function in SQUASHING:
            self.flat = self.flat + (slope < FLAT).float().mean() * len(rows)
        self.square = self.square + rows.square().mean() * len(rows)
        self.last = output

    def row(self) -> torch.Tensor:
        """(share of dead units, of rarely active ones, of saturated entries, root mean square, entries, units)."""
        assert self.active is not None
        share = self.active / self.entries
        parts: list[Any] = [
            (share == 0).float().mean(),
            (share <= RARE).float().mean(),
            self.flat / self.entries,
            (self.square / self.entries) ** 0.5,
            float(self.entries),
            float(len(share)),
        ]
        return torch.stack([torch.as_tensor(p, dtype=torch.float32, device=share.device) for p in parts])


def measure(bench: Bench) -> None:
    """Run the held training batches through a copy in evaluation mode and record each activation's health."""
    batches = bench.enough("train")
    with bench.model(finite=False) as model, torch.no_grad():
        sites = activations(model, batches)
    if not sites:
        return
    rows = torch.stack([site.row() for site in sites.values()]).cpu().numpy().astype(np.float64)
    for (name, site), row in zip(sites.items(), rows, strict=True):
        if not site.is_output:
            bench.record.append("activity", name, bench.step, row)
    known = {n: {"module": s.module, "function": s.function, "order": s.order}
             for n, s in sites.items() if not s.is_output}  # fmt: skip
    bench.record.set_fact("activations", known)


def activations(model: nn.Module, batches: Sequence[Batch]) -> dict[str, Site]:
    """The activations of a model on some batches, by name, in order of execution."""
    sites: dict[str, Site] = {}
    for batch in batches:
        with named_calls(model) as calls, _Listener(sites, calls.path):
            predictions = batch.predict(model)
        for site in sites.values():
            site.is_output |= site.last is not None and _same(site.last, predictions)
            site.last = None
    return sites


class _Listener(TorchDispatchMode):
    """Sees every activation function, whether called as a module, as a function or as a method."""

    def __init__(self, sites: dict[str, Site], path: Sequence[Call]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sites, self._path = sites, path
        self._calls: dict[tuple[str, str], int] = {}
        self._axis = UnitAxis()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = operation(func)
        self._axis.hear(name)
        if name in RECTIFYING + SQUASHING and (name != "hardtanh" or args[1:2] == (0,)):  # hardtanh as ReLU6 alone
            self._note(name, output)
        return output

    def _note(self, function: str, output: Any) -> None:
        if not isinstance(output, torch.Tensor) or output.ndim < 2:
            return
        module = self._path[-1].name if self._path else ""
        count = self._calls[module, function] = self._calls.get((module, function), 0) + 1
        name = f"{module or 'model'}:{function}" + (f"#{count}" if count > 1 else "")
        if name not in self._sites:
            if len(self._sites) >= MOST_SITES:
                return
            self._sites[name] = Site(module, function, len(self._sites))
        self._sites[name].add(output, self._axis.of(output))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.numel() == other.numel()
