"""Ranges of inputs, targets and outputs, at watched steps from 0, 1, 3, 7, 15 ... on, in first validation passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.interception import LossCall

ENTRIES = 4096  # of a tensor that are looked at, at equal distances
FEATURES = 256
MOST = 2**18  # entries of the first samples that are touched at all
VALIDATIONS = 2  # passes of which the inputs are looked at

INPUTS, TARGETS, OUTPUTS = "input_stats", "target_stats", "output_stats"


class Ranges:
    """Measures tensors on their devices; the rows arrive in the record a flush later.

    Args:
        reads: Brings the rows to the host.
        append: Writes (quantity, key, step, row) into the record.
    """

    def __init__(self, reads: DeferredReads, append: Callable[[str, str, int, NDArray[Any]], None]) -> None:
        self._reads, self._append = reads, append
        self._done: dict[tuple[str, str], int] = {}
        self._rows: list[tuple[tuple[str, str, int], torch.Tensor]] = []
        self._validations = 0
        self._at, self._next = -1, 0  # the step looked at last, and the one to be looked at next

    def due(self, step: int) -> bool:
        """Whether to look at a training loss of this step."""
        return step == self._at or step >= self._next

    def training(self, call: LossCall, inputs: torch.Tensor | None, step: int) -> None:
        """Look at a training loss and what led to it."""
        self._at, self._next = step, (1 << (step + 1).bit_length()) - 1
        self._measure(INPUTS, "train", step, inputs, True)
        self._measure(OUTPUTS, call.name, step, call.input, False)
        self._measure(TARGETS, call.name, step, call.target, False)

    def validation(self, inputs: torch.Tensor | None, step: int, passes: int) -> None:
        """Look at the inputs of a validation pass, once in each of the first ones.

        Args:
            inputs: First batch of the pass, or any later one.
            step: Optimiser steps taken.
            passes: Passes that have ended.
        """
        if self._validations < VALIDATIONS and passes >= self._validations and step > 0:
            self._validations = passes + 1
            self._measure(INPUTS, "val", step, inputs, True)

    def _measure(self, quantity: str, key: str, step: int, tensor: torch.Tensor | None, features: bool) -> None:
        if tensor is None or not tensor.is_floating_point() or not tensor.numel() or not tensor.ndim:
            return
        if self._done.get((quantity, key), -1) >= step:
            return
        self._done[quantity, key] = step
        with torch.no_grad():
            self._rows.append(((quantity, key, step), _row(tensor.detach(), features, quantity == TARGETS)))

    def flush(self) -> None:
        """Send the rows on their way: one read for all that lie on one device."""
        rows, self._rows = self._rows, []
        for device in dict.fromkeys(row.device for _, row in rows):
            names, here = zip(*((name, row) for name, row in rows if row.device == device), strict=True)
            ends = np.cumsum([len(row) for row in here])[:-1]

            def arrived(values: list[NDArray[Any]], names: Any = names, ends: Any = ends) -> None:
                for (quantity, key, step), row in zip(names, np.split(values[0], ends), strict=True):
                    self._append(quantity, key, step, row)

            self._reads.read([torch.cat(here)], arrived)


def _row(tensor: torch.Tensor, features: bool, guessed: bool) -> torch.Tensor:
    """(min, max, mean, sd, 5 % and 95 % quantile, share of whole numbers), and two more.

    With `features` these are the largest and the median root mean square over the features: the columns of a table, the
    channels of images, the last axis of sequences. With `guessed` they are what the median costs as a constant guess,
    by absolute errors and by Huber's loss of width 1.
    """
    tensor = tensor[: max(1, MOST * len(tensor) // tensor.numel())]
    flat = tensor.reshape(-1)
    some = flat[:: max(1, flat.numel() // ENTRIES)][:ENTRIES].float()
    ordered = some.sort().values
    last = len(some) - 1
    parts = [
        flat.min().float(),
        flat.max().float(),
        some.mean(),
        some.std(unbiased=False),
        ordered[round(0.05 * last)],
        ordered[round(0.95 * last)],
        (some == some.round()).float().mean(),
    ]
    if features:
        axis = 1 if tensor.ndim in (2, 4, 5) else -1
        rows = tensor.float().movedim(axis, -1).reshape(-1, tensor.shape[axis])
        rows = rows[:ENTRIES, :: max(1, rows.shape[1] // FEATURES)][:, :FEATURES]
        scale = rows.square().mean(0).sqrt()
        parts += [scale.max(), scale.median()]
    if guessed:
        errors = (some - ordered[last // 2]).abs()
        parts += [errors.mean(), torch.where(errors < 1, errors.square() / 2, errors - 0.5).mean()]
    return torch.stack(parts)
