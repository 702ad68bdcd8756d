"""One measured quantity over the run: the recent at full resolution, the old as windows of min, mean and max."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

CELLS = 1 << 20  # values kept at full resolution per series
ROWS = (256, 8192)  # fewest and most rows kept at full resolution, whatever their width
WINDOWS = (64, 512)  # fewest and most windows that stand for the rows before them
NEVER = -1  # the last step of a series without rows


class Series:
    """Rows of one shape at rising optimiser steps, bounded in memory.

    In a row, NaN means "absent" (a parameter without gradient in that step) and infinity means "not finite"
    (NaN or infinity was measured). What is held depends on the rows only, not on how many came at a time, so a
    stored record read back equals the one that wrote it.

    Attributes:
        shape: The shape of one row.
        capacity: The most rows held at full resolution.
        provenance: How the numbers were made: ``unscaled``, ``before_clipping``, ``pass`` and the like.
    """

    def __init__(self, shape: tuple[int, ...], provenance: dict[str, Any] | None = None) -> None:
        self.shape = tuple(shape)
        self.provenance: dict[str, Any] = dict(provenance or {})
        cells = max(1, math.prod(self.shape))
        self.capacity = min(max(CELLS // cells, ROWS[0]), ROWS[1])
        self._most_windows = min(max(CELLS // (4 * cells), WINDOWS[0]), WINDOWS[1])
        # Rows already written to these two are never changed in place: the views handed out stay what they were.
        self._steps = np.empty(0, np.int64)
        self._values = np.empty((0, *self.shape), np.float32)
        self._rows = 0
        self._width = 1  # rows that one window stands for; the last window may still be filling up
        self._folded = 0  # rows that went into windows
        self._old = _as_windows(self._steps, self._values)
        self._history: tuple[Array, Array] | None = None

    def __len__(self) -> int:
        return self._rows

    def append(self, steps: ArrayLike, values: ArrayLike) -> None:
        """Add rows. The arrays are copied.

        Args:
            steps: Optimiser steps, shape (n,), not before the last one held.
            values: Rows, shape (n, *shape).

        Raises:
            ValueError: The shapes do not fit, or the steps fall.
        """
        s, v = np.atleast_1d(np.asarray(steps, np.int64)), as_float32(values)
        if s.ndim != 1 or v.shape != (len(s), *self.shape):
            raise ValueError(f"rows of shape {v.shape} do not fit {s.shape} steps of rows of shape {self.shape}")
        if not len(s):
            return
        if s[0] < self.last_step or (s[1:] < s[:-1]).any():
            raise ValueError(f"steps must not fall: got {s[0]} to {s[-1]} after step {self.last_step}")
        self._history = None
        done = 0
        while done < len(s):
            if self._rows == self.capacity:
                self._fold()
            end = min(len(s), done + self.capacity - self._rows)
            self._write(s[done:end], v[done:end])
            done = end

    @property
    def steps(self) -> Array:
        """Steps of the rows at full resolution, shape (n,). Read-only."""
        return _read_only(self._steps[: self._rows])

    @property
    def values(self) -> Array:
        """Rows at full resolution, shape (n, *shape). Read-only."""
        return _read_only(self._values[: self._rows])

    @property
    def last_step(self) -> int:
        """The step of the last row, -1 where there is none."""
        return int(self._steps[self._rows - 1]) if self._rows else NEVER

    @property
    def windows(self) -> dict[str, Array]:
        """The folded past, one row per window.

        ``first`` and ``last`` step; ``min``, ``mean`` and ``max`` of the values present; their ``count``.
        """
        return self._old

    def history(self) -> tuple[Array, Array]:
        """The whole run in order: window means at their middle steps, then the rows at full resolution. Read-only."""
        if not self._folded:
            return self.steps, self.values
        if self._history is None:
            middle = self._old["first"] + (self._old["last"] - self._old["first"]) // 2
            steps, values = np.concatenate([middle, self.steps]), np.concatenate([self._old["mean"], self.values])
            self._history = _read_only(steps), _read_only(values)
        return self._history

    def state(self) -> tuple[dict[str, Any], list[Array]]:
        """Everything held, as JSON-able facts and arrays; `from_state` is the inverse."""
        meta = {
            "shape": list(self.shape),
            "provenance": self.provenance,
            "width": self._width,
            "folded": self._folded,
        }
        return meta, [self.steps, self.values, *self._old.values()]

    @classmethod
    def from_state(cls, meta: dict[str, Any], arrays: list[Array]) -> Series:
        """The series that `state` described.

        Raises:
            ValueError: The state contradicts itself.
        """
        series = cls(tuple(meta["shape"]), meta["provenance"])
        steps, values, *old = arrays
        width, folded = meta["width"], meta["folded"]
        if type(width) is not int or type(folded) is not int or not 1 <= width <= max(1, folded) < 1 << 62:
            raise ValueError("the state of a series contradicts itself")
        series._width, series._folded = width, folded
        known = series._old
        series._old = dict(zip(known, old, strict=True))
        windows = -(-folded // width)
        fits = (
            all(a.dtype == known[k].dtype and a.shape == (windows, *known[k].shape[1:]) for k, a in series._old.items())
            and windows <= series._most_windows
            and len(steps) <= series.capacity
            and (len(steps) > 0 or not windows)
            and (series._old["first"] <= series._old["last"]).all()
            and (series._old["last"][:-1] <= series._old["first"][1:]).all()
            and (not windows or series._old["last"][-1] <= steps[0])
            and (series._old["count"] >= 0).all()
        )
        if not fits:
            raise ValueError("the state of a series contradicts itself")
        series.append(steps, values)
        return series

    def _write(self, steps: Array, values: Array) -> None:
        end = self._rows + len(steps)
        if end > len(self._steps):
            room = min(self.capacity, max(end, 2 * len(self._steps)))
            self._steps = _grown(self._steps, self._rows, room)
            self._values = _grown(self._values, self._rows, room)
        self._steps[self._rows : end] = steps
        self._values[self._rows : end] = values
        self._rows = end

    def _fold(self) -> None:
        """Move the oldest quarter into windows; when those would be too many, each takes twice as many rows."""
        take = self.capacity // 4
        whole = self._folded // self._width  # windows that are full; one more may be filling up
        rows = _as_windows(self._steps[:take], self._values[:take])
        parts = {k: np.concatenate([self._old[k][whole:], rows[k]]) for k in rows}
        first_rows = self._folded + np.arange(take, dtype=np.int64)
        if self._folded % self._width:
            first_rows = np.concatenate([[whole * self._width], first_rows])
        new = _join(parts, first_rows // self._width)
        self._old = {k: np.concatenate([self._old[k][:whole], new[k]]) for k in new}
        self._folded += take
        while len(self._old["first"]) > self._most_windows:
            self._old = _join(self._old, np.arange(len(self._old["first"])) // 2)
            self._width *= 2
        self._steps = self._steps[take : self._rows].copy()
        self._values = self._values[take : self._rows].copy()
        self._rows -= take


def as_float32(values: ArrayLike) -> Array:
    """Values as float32; what is too large for it becomes infinity, which means "not finite" in a record."""
    if isinstance(values, np.ndarray) and values.dtype == np.float32:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, np.float32)


def _read_only(a: Array) -> Array:
    a.flags.writeable = False
    return a


def _grown(a: Array, rows: int, room: int) -> Array:
    larger = np.empty((room, *a.shape[1:]), a.dtype)
    larger[:rows] = a[:rows]
    return larger


def _as_windows(steps: Array, values: Array) -> dict[str, Array]:
    count = (~np.isnan(values)).astype(np.int32)
    return {"first": steps, "last": steps, "min": values, "mean": values, "max": values, "count": count}


def _join(windows: dict[str, Array], group: Array) -> dict[str, Array]:
    """Join neighbours of the same `group`, whose numbers rise. Means are weighted by what was present."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    present = windows["count"] > 0
    with np.errstate(all="ignore"):
        # In float64: sums of large float32 values would overflow to a false "not finite".
        total = np.where(present, windows["mean"], 0).astype(np.float64) * windows["count"]
        count = np.add.reduceat(windows["count"], starts, axis=0, dtype=np.int32)
        mean = np.add.reduceat(total, starts, axis=0) / count
        mean = np.where(np.isnan(mean) & (count > 0), np.inf, mean)  # infinities of both signs are not "absent"
        return {
            "first": windows["first"][starts],
            "last": np.maximum.reduceat(windows["last"], starts),
            "min": np.fmin.reduceat(windows["min"], starts, axis=0),
            "mean": mean.astype(np.float32),
            "max": np.fmax.reduceat(windows["max"], starts, axis=0),
            "count": count,
        }
