"""What probes share that listen to a forward pass: whose call an operation is part of, and where its units lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

OVER_CHANNELS = ("convolution", "_batch_norm")
OVER_FEATURES = ("addmm", "mm", "bmm", "layer_norm", "linear")


@dataclass
class Call:
    """One call of a module.

    Attributes:
        name: Of the module, empty for the model itself.
        module: Which one.
        counts: How often something was found during this call.
    """

    name: str
    module: nn.Module
    counts: Counter[str] = field(default_factory=Counter)


class UnitAxis:
    """The dimension of the units: channels after a convolution, features after a linear layer."""

    def __init__(self) -> None:
        self._channels = False

    def hear(self, operation: str) -> None:
        """Take note of an operation of the pass."""
        if any(part in operation for part in OVER_CHANNELS):
            self._channels = True
        elif operation in OVER_FEATURES or "layer_norm" in operation:
            self._channels = False

    def of(self, output: torch.Tensor) -> int:
        """The dimension of the units in what follows the operations heard so far."""
        return 1 if self._channels and output.ndim > 2 else -1


@dataclass
class Calls:
    """The module calls of a forward pass.

    Attributes:
        path: Those that run, the innermost last.
        spans: First and last but one sequence number of the graph nodes that each call made, and the module's name;
            inner calls come before the outer ones.
    """

    path: list[Call] = field(default_factory=list)
    spans: list[tuple[int, int, str]] = field(default_factory=list)

    def owner(self, number: int) -> str | None:
        """Name of the innermost module whose call made the graph node of this number; None where none did."""
        return next((name for first, end, name in self.spans if first <= number < end), None)


def next_node() -> int:
    """Sequence number of the graph node that is made next in this thread."""
    number: int = torch._C._autograd._get_sequence_nr()
    return number


@contextmanager
def named_calls(model: nn.Module) -> Iterator[Calls]:
    """Follow the calls of a model's modules."""
    calls = Calls()
    begun: list[int] = []
    handles = []

    def enter(name: str, module: nn.Module) -> None:
        calls.path.append(Call(name, module))
        begun.append(next_node())

    def leave() -> None:
        calls.spans.append((begun.pop(), next_node(), calls.path.pop().name))

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda m, _, name=name: enter(name, m)))
        handles.append(module.register_forward_hook(lambda *_: leave(), always_call=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def step_by_step() -> Iterator[None]:
    """Within, torch does not run a transformer layer as a single operation, which nothing can be seen of."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def operation(func: Any) -> str:
    """Name of an operator, the same in place and out of place."""
    return str(func.overloadpacket.__name__.rstrip("_"))
