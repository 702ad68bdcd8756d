"""Whether an optimiser's gradients are zeroed between its steps. By identity; values are read on suspicion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.shards import local

State = tuple[int, int] | None


class Zeroing:
    """Follows one parameter of an optimiser: what happens to a gradient happens to all.

    A gradient that is the same tensor in the same version, when a backward pass begins, as when the last one ended or
    the optimiser stepped, has not been zeroed in between. What goes through ``.data`` changes no version: a gradient
    that seems kept is therefore looked at on the device, at its first, second, fourth ... occurrence.

    Attributes:
        cycles: Steps after the first that used a gradient.
        kept: Those before which nothing was zeroed since the step before.
        emptied: Steps that began after the gradient was gone which a backward pass had left.
        first: Step at which a gradient was kept (or gone) for the first time; None so far.
        looked, nonzero: Gradients that seemed kept and were looked at; those that were not zero.
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self.cycles = self.kept = self.emptied = self.looked = self.nonzero = 0
        self.first: int | None = None
        self._parameters = list(parameters)
        self._followed: torch.Tensor | None = None
        self._left: State = None
        self._zeroed = self._delivered = self._gone = False
        self._steps = 0

    def backward_starts(self, reads: DeferredReads) -> None:
        """Compare the gradient with how it was left."""
        if self._followed is None or self._zeroed:
            return
        gradient = self._followed.grad
        self._zeroed = gradient is None or _state(gradient) != self._left
        if not self._zeroed and not self._delivered and gradient is not None and _is_power_of_two(self.kept + 1):
            reads.read([local(gradient.detach()).abs().sum()], self._take_look)

    def _take_look(self, values: list[NDArray[Any]]) -> None:
        self.looked += 1
        self.nonzero += bool(np.any(values[0] != 0))

    def backward_ended(self) -> None:
        """Note how the backward pass leaves the gradient."""
        if self._followed is None:
            self._followed = next((p for p in self._parameters if p.grad is not None), None)
        if self._followed is not None and self._followed.grad is not None:
            self._left, self._delivered, self._gone = _state(self._followed.grad), True, False

    def step_begins(self) -> None:
        """The optimiser is about to step; it may run backward passes of its own, and zero what they leave."""
        self._gone = self._delivered and self._followed is not None and self._followed.grad is None

    def stepped(self, step: int) -> None:
        """The optimiser has taken its step."""
        if not self._delivered or self._followed is None:
            return
        self._steps += 1
        kept = self._steps > 1 and not self._zeroed
        self.emptied += self._gone
        self.cycles += self._steps > 1
        self.kept += kept
        if (self._gone or kept) and self.first is None:
            self.first = step
        self._left = _state(self._followed.grad)
        self._zeroed = self._delivered = False

    def forget(self) -> None:
        """Steps will go by unwatched: the next one that is not has no step before it."""
        self._steps, self._left = 0, None
        self._zeroed = self._delivered = False

    def rewired(self, parameters: Sequence[torch.Tensor]) -> None:
        """These are trained from now on: one that was followed and is none of them is left."""
        self._parameters = list(parameters)
        if not any(p is self._followed for p in self._parameters):
            self._followed = None
            self.forget()

    def facts(self) -> dict[str, int | None]:
        """The counts, as the record keeps them."""
        names = ("cycles", "kept", "emptied", "first", "looked", "nonzero")
        return {name: getattr(self, name) for name in names}


def _state(gradient: torch.Tensor | None) -> State:
    return None if gradient is None else (id(gradient), gradient._version)


def _is_power_of_two(n: int) -> bool:
    return n & (n - 1) == 0
