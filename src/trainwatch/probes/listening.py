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


@contextmanager
def named_calls(model: nn.Module) -> Iterator[list[Call]]:
    """The calls of modules whose forward pass runs, the innermost last."""
    path: list[Call] = []
    handles = []

    def enter(name: str, module: nn.Module) -> None:
        path.append(Call(name, module))

    def leave(*_: Any) -> None:
        path.pop()

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda m, _, name=name: enter(name, m)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield path
    finally:
        for handle in handles:
            handle.remove()


def operation(func: Any) -> str:
    """Name of an operator, the same in place and out of place."""
    return str(func.overloadpacket.__name__.rstrip("_"))
