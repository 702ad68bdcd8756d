"""Gradient norms of every parameter at every step: two operations on the device, read a flush later.

These are L2 norms. L0, L1 and L-infinity are taken once between two flushes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.device_time import DeviceTime
from trainwatch.capture.shards import is_shard, is_unreduced, local

ABSENT = -1.0  # in the ring: the parameter had no gradient (NaN would read as a gradient that is not finite)
OTHER_NORMS = (0, 1, math.inf)
Versions = list[tuple[int, int] | None]
Rows = Callable[[NDArray[Any], NDArray[Any]], None]  # steps (n,), L2 norms (n, P); or steps (1,), other norms (1, P, 3)


class GradientRing:
    """Norms of a list of parameters, step by step, kept on their devices between flushes.

    `measure` at the end of each backward pass overwrites the row of the coming step, so that the last backward before
    the step counts; `commit` at the optimiser's step keeps it. Of sharded parameters it measures the parts that this
    process holds.

    Attributes:
        reason: Why the norms are not those of gradients, where that is so.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], rows: int) -> None:
        self.parameters = list(parameters)
        self.rows = rows
        self.reason = ""
        self._shards = any(map(is_shard, self.parameters))
        self._steps: list[int] = []
        self._measured = False
        self._followed = False  # `total` was asked for: from now on it is noted which gradients were measured
        self._seen: Versions | None = None
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
        if self._shards and not row and any(is_unreduced(p.grad) for p in self.parameters if p.grad is not None):
            self.reason = "a gradient is a sum whose terms lie in several processes"
        if row < self.rows:
            for part in self._parts:
                part.measure(row, scale)
            self._measured = True
            if self._followed:
                self._seen = self._state()

    def finite(self) -> bool:
        """Whether the norms measured last are finite. Waits for devices other than the CPU."""
        row = len(self._steps)
        return not self._measured or all(part.finite(row) for part in self._parts)

    def total(self) -> torch.Tensor | None:
        """L2 norm of all gradients together, from the norms measured last, on the device of the first parameter.

        None where they are not those of the gradients as they are now: none were measured, or a gradient was replaced
        or changed since.
        """
        now = self._state()
        asked_before, self._followed = self._followed, True
        if not (asked_before and self._measured) or now is None or now != self._seen:
            return None
        row = len(self._steps)
        norms = [part.norms(row) for part in self._parts]
        total: torch.Tensor = torch.linalg.vector_norm(torch.cat([n.to(norms[0].device) for n in norms]))
        return total

    def _state(self) -> Versions | None:
        """As `versions`; None where one is sparse, or a part of a larger one."""
        plain = not self._shards and all(p.grad is None or p.grad.layout is torch.strided for p in self.parameters)
        return self.versions() if plain else None

    def versions(self) -> Versions:
        """Identity and version of each gradient; None where there is none."""
        return [None if p.grad is None else (id(p.grad), p.grad._version) for p in self.parameters]

    def commit(self, step: int, overflow: torch.Tensor | None = None) -> bool:
        """Keep the measured row as that of this step.

        Args:
            step: The optimiser step.
            overflow: Scalar on the device, above 0 where the step was skipped for an overflow: no row is kept then.

        Returns:
            The ring is full and wants a `flush`.
        """
        if self._measured and overflow is not None:
            for part in self._parts:
                part.forget(len(self._steps), overflow)
        if self._measured:
            self._steps.append(step)
            self._measured = False
        return len(self._steps) >= self.rows

    def discard(self) -> None:
        """Forget a measured row whose step was skipped."""
        self._measured = False

    def flush(self, reads: DeferredReads, deliver: Rows, others: Rows, spent: Callable[[float], None]) -> None:
        """Send the rows kept so far on their way to the host, and start again with a fresh buffer.

        Args:
            reads: Where they are read from the device.
            deliver: Called with them when they have arrived.
            others: Called with the other norms at one of these steps.
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
            norms = np.empty((n, width))
            for where, block in zip(columns, blocks, strict=False):
                norms[:, where] = block
            deliver(steps, _told(norms))
            if looks:
                other = np.empty((width, len(OTHER_NORMS)))
                for where, look in zip(columns, blocks[len(columns) :], strict=True):
                    other[where] = look.T
                others(steps[:1], _told(other)[None])
            spent(n * sum(time.seconds() for time in times))

        looks = [part.others for part in self._parts if part.others is not None]
        # A row measured but not committed (between backward and step) belongs to the next buffer.
        reads.read([*(part.take(n, keep_next=self._measured) for part in self._parts), *looks], arrived)


class _DevicePart:
    """The rows of the parameters on one device."""

    def __init__(self, columns: list[int], device: torch.device, parameters: list[torch.Tensor], rows: int) -> None:
        self.columns, self.rows, self.device = columns, rows, device
        self.parameters = [parameters[i] for i in columns]
        self._absent = torch.tensor(ABSENT, device=device)
        kinds = {p.dtype for p in self.parameters}
        # A half-precision norm overflows at 65504; one kind for all, since they are stacked.
        self._dtype = None if kinds == {torch.float32} else torch.float64 if torch.float64 in kinds else torch.float32
        self._parts = any(is_shard(p) or not p.numel() for p in self.parameters)  # some of which may be empty
        self._nothing = torch.zeros(1, device=device)  # for them: no largest entry of an empty tensor is known
        self._complete = not any(k.is_complex for k in kinds)  # and so far every parameter had a dense gradient
        self._renew()

    def _renew(self) -> None:
        self._ring = torch.full((self.rows, len(self.columns)), ABSENT, device=self.device)
        self._row = self._ring.unbind(0)  # views made once: a row costs no operation when it is written
        self.time = DeviceTime(self.device)  # of the first row, for all
        self.others: torch.Tensor | None = None  # other norms in the first row, shape (3, P)

    def measure(self, row: int, scale: torch.Tensor | None) -> None:
        if row:
            self._measure(row, scale)
        else:
            with self.time.around():
                self._measure(row, scale)
            self.others = torch.stack([torch.stack(self._norms(order, scale)) for order in OTHER_NORMS])

    def _measure(self, row: int, scale: torch.Tensor | None) -> None:
        torch.stack(self._norms(2, scale), out=self._row[row])

    def _norms(self, order: float, scale: torch.Tensor | None, dtype: torch.dtype | None = None) -> list[torch.Tensor]:
        gradients = [p.grad for p in self.parameters]
        if self._parts:
            gradients = [None if g is None else local(g) if local(g).numel() else self._nothing for g in gradients]
        dtype = dtype or self._dtype
        norms: Sequence[torch.Tensor] = ()
        if self._complete:
            try:
                norms = torch._foreach_norm(gradients, order, dtype=dtype)  # type: ignore[arg-type]
            except (TypeError, RuntimeError):  # absent or sparse ones: they are sorted out from now on
                self._complete = False
        if not self._complete:
            present = [_real(g) for g in gradients if g is not None and not g.is_sparse]
            norms = torch._foreach_norm(present, order, dtype=dtype) if present else ()
        if scale is not None and norms and order:  # a count has no scale
            torch._foreach_div_(list(norms), scale.to(self.device))
        if len(norms) == len(gradients):
            return list(norms)
        found = iter(norms)
        return [self._absent if g is None or g.is_sparse else next(found) for g in gradients]

    def norms(self, row: int) -> torch.Tensor:
        """The norms of a row, 0 where there was no gradient."""
        return self._row[row].clamp(min=0)

    def forget(self, row: int, overflow: torch.Tensor) -> None:
        self._row[row].masked_fill_(overflow.to(self.device) > 0, ABSENT)

    def finite(self, row: int) -> bool:
        if self.device.type != "cpu":
            return bool(self._row[row].isfinite().all())
        if all(map(math.isfinite, self._row[row].tolist())):  # from memory: dispatches nothing
            return True
        # Squares of numbers above 1e19 overflow in single precision, though the numbers do not.
        self._row[row].copy_(torch.stack([n.double() for n in self._norms(2, None, torch.float64)]))
        return all(map(math.isfinite, self._row[row].tolist()))

    def take(self, n: int, keep_next: bool) -> torch.Tensor:
        filled, row = self._ring, self._row
        self._renew()
        if keep_next:
            self._row[0].copy_(row[n])
        return filled[:n]


def _told(norms: NDArray[Any]) -> NDArray[Any]:
    """Norms as a record has them: infinite where they are not finite, NaN where there was no gradient."""
    return np.where(norms == ABSENT, np.nan, np.where(np.isfinite(norms), norms, np.inf))


def _real(gradient: torch.Tensor) -> torch.Tensor:
    """The gradient as real numbers of the same norm."""
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient
