"""Gradient norms of every parameter at every step: two operations on the device, read a flush later."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.device_time import DeviceTime

ABSENT = -1.0  # in the ring: the parameter had no gradient (NaN would read as a gradient that is not finite)
Rows = Callable[[NDArray[Any], NDArray[Any]], None]  # steps (n,), norms (n, P)


class GradientRing:
    """Norms of a list of parameters, step by step, kept on their devices between flushes.

    `measure` at the end of each backward pass overwrites the row of the coming step, so that the last backward before
    the step counts; `commit` at the optimiser's step keeps it.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], rows: int) -> None:
        self.parameters = list(parameters)
        self.rows = rows
        self._steps: list[int] = []
        self._measured = False
        self._parts = [
            _DevicePart([i for i, p in enumerate(self.parameters) if p.device == device], device, self.parameters, rows)
            for device in dict.fromkeys(p.device for p in self.parameters)
        ]

    def measure(self, scale: torch.Tensor | None = None) -> None:
        """Write the norms of the gradients as they are now.

        Args:
            scale: Scalar on the device by which the loss was multiplied (AMP), to be divided out.
        """
        row = len(self._steps)
        if row < self.rows:
            for part in self._parts:
                part.measure(row, scale)
            self._measured = True

    def finite(self) -> bool:
        """Whether the norms measured last are finite. Waits for devices other than the CPU."""
        row = len(self._steps)
        return not self._measured or all(part.finite(row) for part in self._parts)

    def commit(self, step: int) -> bool:
        """Keep the measured row as that of this step.

        Returns:
            The ring is full and wants a `flush`.
        """
        if self._measured:
            self._steps.append(step)
            self._measured = False
        return len(self._steps) >= self.rows

    def discard(self) -> None:
        """Forget a measured row whose step was skipped."""
        self._measured = False

    def flush(self, reads: DeferredReads, deliver: Rows, spent: Callable[[float], None]) -> None:
        """Send the rows kept so far on their way to the host, and start again with a fresh buffer.

        Args:
            reads: Where they are read from the device.
            deliver: Called with them when they have arrived.
            spent: Called with the seconds that measuring them took on devices of a queue of their own.
        """
        if not self._steps:
            return
        steps, n = np.asarray(self._steps, np.int64), len(self._steps)
        self._steps = []
        columns = [part.columns for part in self._parts]
        width = len(self.parameters)
        times = [part.time for part in self._parts]

        def arrived(blocks: list[NDArray[Any]]) -> None:
            norms = np.empty((n, width), np.float32)
            for where, block in zip(columns, blocks, strict=True):
                norms[:, where] = block
            absent = norms == ABSENT
            norms[~np.isfinite(norms)] = np.inf
            norms[absent] = np.nan
            deliver(steps, norms)
            spent(n * sum(time.seconds() for time in times))

        # A row measured but not committed (between backward and step) belongs to the next buffer.
        reads.read([part.take(n, keep_next=self._measured) for part in self._parts], arrived)


class _DevicePart:
    """The rows of the parameters on one device."""

    def __init__(self, columns: list[int], device: torch.device, parameters: list[torch.Tensor], rows: int) -> None:
        self.columns, self.rows, self.device = columns, rows, device
        self.parameters = [parameters[i] for i in columns]
        self._absent = torch.tensor(ABSENT, device=device)
        kinds = {p.dtype for p in self.parameters}
        # A half-precision norm overflows at 65504; one kind for all, since they are stacked.
        self._dtype = None if kinds == {torch.float32} else torch.float64 if torch.float64 in kinds else torch.float32
        self._complete = not any(k.is_complex for k in kinds)  # and so far every parameter had a dense gradient
        self._renew()

    def _renew(self) -> None:
        self._ring = torch.full((self.rows, len(self.columns)), ABSENT, device=self.device)
        self._row = self._ring.unbind(0)  # views made once: a row costs no operation when it is written
        self.time = DeviceTime(self.device)  # of the first row, for all

    def measure(self, row: int, scale: torch.Tensor | None) -> None:
        if row:
            self._measure(row, scale)
        else:
            with self.time.around():
                self._measure(row, scale)

    def _measure(self, row: int, scale: torch.Tensor | None) -> None:
        gradients = [p.grad for p in self.parameters]
        norms: Sequence[torch.Tensor] = ()
        if self._complete:
            try:
                norms = torch._foreach_norm(gradients, 2, dtype=self._dtype)  # type: ignore[arg-type]
            except (TypeError, RuntimeError):  # absent or sparse ones: they are sorted out from now on
                self._complete = False
        if not self._complete:
            present = [_real(g) for g in gradients if g is not None and not g.is_sparse]
            norms = torch._foreach_norm(present, 2, dtype=self._dtype) if present else ()
        if scale is not None and norms:
            torch._foreach_div_(list(norms), scale.to(self.device))
        if len(norms) < len(gradients):
            found = iter(norms)
            norms = [self._absent if g is None or g.is_sparse else next(found) for g in gradients]
        torch.stack(list(norms), out=self._row[row])

    def finite(self, row: int) -> bool:
        if self.device.type != "cpu":
            return bool(self._row[row].isfinite().all())
        return all(map(math.isfinite, self._row[row].tolist()))  # from memory: dispatches nothing

    def take(self, n: int, keep_next: bool) -> torch.Tensor:
        filled, row = self._ring, self._row
        self._renew()
        if keep_next:
            self._row[0].copy_(row[n])
        return filled[:n]


def _real(gradient: torch.Tensor) -> torch.Tensor:
    """The gradient as real numbers of the same norm."""
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient
