"""One measured quantity over the run: the recent at full resolution, the old as windows of min, mean and max."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

CELLS = 1 << 20  # values kept at full resolution per series
ROWS = (256, 8192)  # fewest and most rows kept at full resolution, whatever their width
WINDOWS = 512


class Series:
    """Rows of one shape at rising optimiser steps, bounded in memory.

    In a row, NaN means "absent" (a parameter without gradient in that step) and infinity means "not finite"
    (NaN or infinity was measured).

    Attributes:
        provenance: How the numbers were made: ``unscaled``, ``before_clipping``, ``pass`` and the like.
    """

    def __init__(self, shape: tuple[int, ...], provenance: dict[str, Any] | None = None) -> None:
        self.shape = shape
        self.provenance: dict[str, Any] = dict(provenance or {})
        self.capacity = int(np.clip(CELLS // max(1, int(np.prod(shape))), *ROWS))
        self._chunks: list[tuple[Array, Array]] = []
        self._rows = 0
        self._width = 1  # rows that one window stands for
        self._old = {
            "first": np.zeros(0, np.int64),
            "last": np.zeros(0, np.int64),
            **{k: np.zeros((0, *shape), np.float32) for k in ("min", "mean", "max")},
        }

    def __len__(self) -> int:
        return self._rows

    def append(self, steps: ArrayLike, values: ArrayLike) -> None:
        """Add rows.

        Args:
            steps: Optimiser steps, shape (n,), not before the last one held.
            values: Rows, shape (n, *shape).

        Raises:
            ValueError: The shapes do not fit.
        """
        s, v = np.atleast_1d(np.asarray(steps, np.int64)), np.asarray(values, np.float32)
        if v.shape != (len(s), *self.shape):
            raise ValueError(f"rows of shape {v.shape} do not fit {len(s)} steps of rows of shape {self.shape}")
        self._chunks.append((s, v))
        self._rows += len(s)
        if self._rows > self.capacity:
            self._fold()

    @property
    def steps(self) -> Array:
        """Steps of the rows at full resolution, shape (n,)."""
        return self._merged()[0]

    @property
    def values(self) -> Array:
        """Rows at full resolution, shape (n, *shape)."""
        return self._merged()[1]

    @property
    def last_step(self) -> int:
        return int(self._chunks[-1][0][-1]) if self._chunks else -1

    @property
    def windows(self) -> dict[str, Array]:
        """The folded past: ``first`` and ``last`` step, and ``min``, ``mean``, ``max``, one row per window."""
        return self._old

    def history(self) -> tuple[Array, Array]:
        """The whole run: window means, at their middle steps, then the rows at full resolution."""
        steps, values = self._merged()
        if not len(self._old["first"]):
            return steps, values
        middle = (self._old["first"] + self._old["last"]) // 2
        return np.concatenate([middle, steps]), np.concatenate([self._old["mean"], values])

    def state(self) -> tuple[dict[str, Any], list[Array]]:
        """Everything held, as JSON-able facts and arrays; `from_state` is the inverse."""
        steps, values = self._merged()
        meta = {"shape": list(self.shape), "provenance": self.provenance, "width": self._width}
        return meta, [steps, values, *self._old.values()]

    @classmethod
    def from_state(cls, meta: dict[str, Any], arrays: list[Array]) -> Series:
        series = cls(tuple(meta["shape"]), meta["provenance"])
        steps, values, *old = arrays
        if len(steps):
            series._chunks, series._rows = [(steps, values)], len(steps)
        series._width = meta["width"]
        series._old = dict(zip(series._old, old, strict=True))
        return series

    def _merged(self) -> tuple[Array, Array]:
        if not self._chunks:
            return np.zeros(0, np.int64), np.zeros((0, *self.shape), np.float32)
        if len(self._chunks) > 1:
            steps, values = zip(*self._chunks, strict=True)
            self._chunks = [(np.concatenate(steps), np.concatenate(values))]
        return self._chunks[0]

    def _fold(self) -> None:
        """Move the older half into windows; when those are too many, join each with its neighbour."""
        steps, values = self._merged()
        take = (self._rows - self.capacity // 2) // self._width * self._width
        if not take:
            return
        folded = _reduce(steps[:take], steps[:take], values[:take], values[:take], values[:take], self._width)
        self._old = {k: np.concatenate([self._old[k], folded[k]]) for k in self._old}
        self._chunks, self._rows = [(steps[take:].copy(), values[take:].copy())], self._rows - take
        while len(self._old["first"]) > WINDOWS:
            even = len(self._old["first"]) // 2 * 2
            joined = _reduce(*(self._old[k][:even] for k in self._old), 2)
            self._old = {k: np.concatenate([joined[k], self._old[k][even:]]) for k in self._old}
            self._width *= 2


def _reduce(first: Array, last: Array, low: Array, mean: Array, high: Array, by: int) -> dict[str, Array]:
    def grouped(a: Array) -> Array:
        return a.reshape(-1, by, *a.shape[1:])

    count = (~np.isnan(grouped(mean))).sum(1)
    total = np.where(np.isnan(grouped(mean)), 0, grouped(mean)).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        average = np.where(count > 0, total / count, np.nan)
    return {
        "first": grouped(first)[:, 0],
        "last": grouped(last)[:, -1],
        "min": np.fmin.reduce(grouped(low), axis=1),
        "mean": average.astype(np.float32),
        "max": np.fmax.reduce(grouped(high), axis=1),
    }
