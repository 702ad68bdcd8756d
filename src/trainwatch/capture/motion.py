"""How the weights move: fixed coordinates of every parameter, looked at now and then, and the host never waits."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.path import EVERY, JUMP, START, STRETCH, UPDATE, Path

Array = NDArray[Any]

MOST = 1024  # coordinates of a tensor
ROWS = 16  # fewest rows of an embedding: most steps touch few of them
Rows = Callable[[int, Array, Array], None]  # updates taken, rows of `motion` and of `weights`


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where the values of a snapshot belong: one tensor a device, and the places of its entries among all."""

    kinds: tuple[tuple[torch.device, torch.dtype], ...]
    places: tuple[Array, ...]


class Motion:
    """Snapshots of the parameters of one optimiser.

    After every tenth step, and after the one that follows it, the coordinates are copied on their device in one
    operation. What they amount to is computed on the host, a flush later (see `Path`).

    Args:
        parameters: Of the optimiser.
        embeddings: For each, whether its rows are looked up one by one: whole rows are followed then.

    Attributes:
        reason: Why nothing is measured (any more), where that is so.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], embeddings: Sequence[bool]) -> None:
        self.reason = ""
        self._parameters = list(parameters)
        self._embeddings = list(embeddings)
        self._shapes = [p.shape for p in self._parameters]
        self._draw = random.Random(0)  # our own: the run's random numbers are not touched
        self._offsets = [self._draw.random() for _ in self._parameters]
        self._measured = [i for i, p in enumerate(self._parameters) if _has_values(p)]
        self._pointers: list[int] = []
        self._views: list[list[torch.Tensor]] = []  # for each device
        self._layout: _Layout | None = None
        self._swapped = False
        self._last = 0  # updates before the latest snapshot
        self._kept: list[tuple[str, int, _Layout, list[torch.Tensor]]] = []
        views = self._look()
        self._measured = [i for i, found in zip(self._measured, views, strict=True) if found]
        if not self._measured:
            self.reason = "no parameter of the optimiser is a plain tensor with all its values in memory"
            return
        self._counts = [sum(map(len, found)) for found in views if found]
        self._path = Path(len(self._parameters), self._measured, self._counts)
        self.snapshot(START, 0)

    @staticmethod
    def due(updates: int) -> bool:
        """Whether the weights are to be looked at after so many updates."""
        return updates % EVERY < 2

    def begin(self) -> None:
        """Training is about to begin: the weights as they are now are those it starts from."""
        self._kept = []
        self.snapshot(START, 0)

    def stepped(self, updates: int) -> None:
        """Look at the weights after so many updates."""
        if updates % EVERY == 0:
            self.snapshot(STRETCH, updates)
        elif updates % EVERY == 1 and self._last == updates - 1:
            self.snapshot(UPDATE, updates)

    def loaded(self, updates: int) -> None:
        """Weights were loaded into the model: where they jumped to is no motion of the training."""
        self.snapshot(JUMP if updates else START, updates)

    def snapshot(self, kind: str, updates: int) -> None:
        """Copy the coordinates as they are now."""
        if self.reason:
            return
        if any(p.shape != s for p, s in zip(self._parameters, self._shapes, strict=True)):
            self.reason = "the shape of a parameter changed"
            return
        pointers = [self._parameters[i].data_ptr() for i in self._measured]
        if pointers != self._pointers or not self._views:
            self._swapped |= self._pointers not in ([], pointers)
            self._pointers = pointers
            if not self._arrange():
                self.reason = "a parameter is not laid out in memory as it was"
                return
        assert self._layout is not None
        with torch.no_grad():
            self._kept.append((kind, updates, self._layout, [torch.cat(views) for views in self._views]))
        if kind != UPDATE:
            self._last = updates
        if self._swapped:  # weights that come and go: views would keep alive what the user lets go
            self._views = []

    def flush(
        self, reads: DeferredReads, deliver: Rows, guard: Callable[..., Any], updates: int, *, last: bool = False
    ) -> None:
        """Send the snapshots on their way to the host.

        Args:
            reads: Brings them there.
            deliver: Takes the rows once they are known; there are none where no stretch ended since the last flush.
            guard: Calls a function with arguments, and contains its faults.
            updates: Taken so far.
            last: The run is over: look once more.
        """
        if last and updates > self._last:
            self.snapshot(STRETCH, updates)
        kept, self._kept = self._kept, []
        for layout, group in groupby(kept, key=lambda snapshot: snapshot[2]):
            some = list(group)
            marks = [(kind, n) for kind, n, _, _ in some]
            stacked = [torch.stack(blocks) for blocks in zip(*(blocks for *_, blocks in some), strict=True)]

            def arrived(blocks: list[Array], marks: Any = marks, layout: _Layout = layout) -> None:
                values = np.empty((len(marks), sum(map(len, layout.places))), np.result_type(*blocks))
                for block, place in zip(blocks, layout.places, strict=True):
                    values[:, place] = block
                for (kind, n), coordinates in zip(marks, values, strict=True):
                    self._path.take(kind, n, coordinates)
                if self._path.news:
                    deliver(*self._path.rows())

            reads.read(stacked, functools.partial(guard, arrived))

    def _look(self) -> list[list[torch.Tensor]]:
        """Views of the coordinates of each parameter."""
        return [
            _coordinates(self._parameters[i].detach(), self._offsets[i], self._embeddings[i]) for i in self._measured
        ]

    def _arrange(self) -> bool:
        """Make the views anew, those on one device together; False where they are of other lengths."""
        views = self._look()
        if [sum(map(len, found)) for found in views] != self._counts:
            return False
        devices = [self._parameters[i].device for i in self._measured]
        ends = np.cumsum(self._counts)
        of_device: dict[torch.device, list[int]] = {}
        for place, device in enumerate(devices):
            of_device.setdefault(device, []).append(place)
        self._views = [[v for place in places for v in views[place]] for places in of_device.values()]
        dtypes = [_joint(v.dtype for v in here) for here in self._views]
        kinds = tuple(zip(of_device, dtypes, strict=True))
        if self._layout is None or self._layout.kinds != kinds:
            starts = np.r_[0, ends[:-1]]
            self._layout = _Layout(
                kinds, tuple(np.concatenate([np.arange(starts[k], ends[k]) for k in p]) for p in of_device.values())
            )
        return True


def _has_values(parameter: torch.Tensor) -> bool:
    """Whether a parameter is a plain tensor that holds all its values: neither sparse, on meta, nor a shard."""
    whole = not hasattr(parameter, "placements") and type(parameter).__name__ != "FlatParameter"
    return bool(parameter.layout is torch.strided and not parameter.is_meta and whole and parameter.numel())


def _coordinates(parameter: torch.Tensor, offset: float, embedding: bool) -> list[torch.Tensor]:
    """Views of at most `MOST` entries, spread over the whole tensor; none where they would have to be copied.

    Args:
        parameter: Of any shape.
        offset: Where to begin, in [0, 1) of the distance between two of them.
        embedding: Take rows, at most `MOST` of their entries.
    """
    tensor = torch.view_as_real(parameter) if parameter.is_complex() else parameter
    if embedding and tensor.ndim == 2:
        rows, width = tensor.shape
        step = math.ceil(rows / max(ROWS, MOST // width))
        chosen = range(int(offset * step), rows, step)
        return [tensor[row, :: math.ceil(len(chosen) * width / MOST)] for row in chosen]
    strides = list(tensor.stride())
    in_memory = tensor.permute(sorted(range(tensor.ndim), key=lambda d: -strides[d]))
    if not in_memory.is_contiguous():
        return []
    # Coprime with the length of a row: no row and no column is missed, as far as the entries go.
    step, row = math.ceil(tensor.numel() / MOST), tensor.numel() // (tensor.shape[0] if tensor.ndim else 1)
    while step > 1 and math.gcd(step, row) > 1:
        step += 1
    return [in_memory.reshape(-1)[int(offset * step) :: step]]


def _joint(dtypes: Any) -> torch.dtype:
    """What `torch.cat` makes of several types."""
    found: torch.dtype | None = None
    for dtype in dtypes:
        found = dtype if found is None else torch.promote_types(found, dtype)
    assert found is not None
    return found
