"""What snapshots of the weights amount to: their norms, how long updates are, how far they led, and how straight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SMALL = 0.05  # of the root mean square, now or at the start: a weight next to zero
EVERY = 10  # optimiser steps from one snapshot to the next; the step after each is looked at too
# Weights before the first step; at the end of a stretch of steps; one step later; and where they were put by hand.
START, STRETCH, UPDATE, JUMP = "start", "stretch", "update", "jump"


class Path:
    """The path of one optimiser's parameters in some of their coordinates. On the host.

    Args:
        width: Parameters of the optimiser, P.
        measured: Those that are followed.
        counts: Coordinates of each of them.

    Attributes:
        news: A stretch ended since the last row.
    """

    def __init__(self, width: int, measured: Sequence[int], counts: Sequence[int]) -> None:
        self.news = False
        self._updates = 0  # before the latest snapshot
        self._width, self._measured = width, np.array(measured)
        self._starts, self._counts = np.r_[0, np.cumsum(counts)[:-1]], np.array(counts)
        self._ratios: list[Array] = []
        self._cosines: list[Array] = []
        self._flips: list[Array] = []
        self._at: Array = np.empty(0)  # the latest snapshot
        self._before: tuple[Array, Array] | None = None  # the latest stretch, and its length for each parameter

    @np.errstate(invalid="ignore", over="ignore")  # weights may be anything
    def take(self, kind: str, updates: int, values: Array) -> None:
        """Take in a snapshot; they come in order.

        Args:
            kind: `START`, `STRETCH`, `UPDATE` or `JUMP`.
            updates: Taken before it.
            values: All coordinates, one parameter after the other.
        """
        if kind == UPDATE:
            self._ratios.append(_divided(self._length(values - self._at), self._length(values)))
            self._flips.append(self._share(np.sign(self._at) * np.sign(values) < 0))
            return
        before: tuple[Array, Array] | None = None
        if kind == START:
            self._start, self._norm, self._total = values, self._length(values), np.zeros(len(self._starts))
        elif kind == STRETCH:
            moved = values - self._at
            length = self._length(moved)
            steps, before = updates - self._updates, (moved, length)
            if steps > EVERY:  # some went by unwatched: their path is taken to go on as in the stretch before
                length = length if self._before is None else self._before[1] * (steps / EVERY)
                before = None
            elif self._before is not None and steps == EVERY:  # the last stretch of a run may be a short one
                inner = self._sums(np.multiply(moved, self._before[0], dtype=np.float64))
                self._cosines.append(_divided(inner, length * self._before[1]))
            self._total = self._total + length
            self.news = True
        self._at, self._before, self._updates = values, before, updates

    @np.errstate(invalid="ignore", over="ignore")
    def rows(self) -> tuple[int, Array, Array]:
        """Updates taken, and for each parameter the numbers of `motion`, shape (P, 4), and of `weights`, (P, 6)."""
        distance = self._length(self._at - self._start)
        motion = (
            _means(self._ratios),
            _divided(distance, self._norm),
            _divided(self._total, self._norm),
            _means(self._cosines),
        )
        size, rms = np.abs(self._at), np.sqrt(self._sums(np.square(self._at, dtype=np.float64)) / self._counts)
        weights = (
            self._sums(size) / self._counts,
            rms,
            np.maximum.reduceat(size, self._starts),
            self._share(size == 0),
            self._share(size < SMALL * np.repeat(np.maximum(rms, self._norm / np.sqrt(self._counts)), self._counts)),
            _means(self._flips),
        )
        self._ratios, self._cosines, self._flips, self.news = [], [], [], False
        lost = ~np.isfinite(self._sums(self._at))
        return self._updates, self._spread(motion, lost), self._spread(weights, lost)

    def _spread(self, columns: Sequence[Array | float], lost: Array) -> Array:
        """Columns over all parameters: absent where one is not followed, lengths infinite where one is lost."""
        rows = np.stack([np.broadcast_to(c, self._norm.shape) for c in columns], 1)
        rows[lost, :3] = np.inf
        found = np.full((self._width, len(columns)), np.nan)
        found[self._measured] = rows
        return found

    def _share(self, which: Array) -> Array:
        return np.asarray(self._sums(which) / self._counts)

    def _length(self, values: Array) -> Array:
        return np.asarray(np.sqrt(self._sums(np.square(values, dtype=np.float64))))

    def _sums(self, values: Array) -> Array:
        return np.asarray(np.add.reduceat(values, self._starts, dtype=np.float64))


def _divided(part: Array, whole: Array) -> Array:
    """A ratio; NaN where there is nothing to relate it to."""
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0))


def _means(rows: list[Array]) -> Array | float:
    """Mean over the rows of what is a number in each column; NaN where nothing is."""
    if not rows:
        return np.nan
    table = np.array(rows)
    there = np.isfinite(table)
    return _divided(np.where(there, table, 0.0).sum(0), there.sum(0).astype(float))
