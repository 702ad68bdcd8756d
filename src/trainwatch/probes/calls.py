"""Which module is at work: names for what runs in a forward pass, and for the backward pass behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Calls:
    """The module calls of a forward pass.

    Attributes:
        path: Names of the modules whose forward pass runs, the innermost last; the model itself has an empty name.
        spans: First and last but one sequence number of the graph nodes that each call made, and the module's name;
            inner calls come before the outer ones.
    """

    path: list[str] = field(default_factory=list)
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

    def enter(name: str) -> None:
        calls.path.append(name)
        begun.append(next_node())

    def leave() -> None:
        calls.spans.append((begun.pop(), next_node(), calls.path.pop()))

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: enter(name)))
        handles.append(module.register_forward_hook(lambda *_: leave(), always_call=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
