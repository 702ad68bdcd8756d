"""Mean and variance of the numbers that training batches are to predict: references are kept, reduced at the flush."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainwatch.capture.classes import version_of
from trainwatch.capture.deferred import DeferredReads

HELD_BYTES = 16 << 20  # of targets kept alive until the flush; beyond, batches are passed over
ENTRIES = 4096  # of a batch that are looked at, at equal distances

Moments = NDArray[Any]


class TargetMoments:
    """Takes the moments of continuous training targets, batch by batch."""

    def __init__(self) -> None:
        self._held: list[tuple[str, int, torch.Tensor, int | None]] = []
        self._bytes = 0

    def hold(self, stream: str, target: torch.Tensor, step: int) -> None:
        """Remember the targets of a training batch; of several in a step, the first.

        Args:
            stream: Of ``train_loss``.
            target: The targets, which the loop may go on using, but should not change in place.
            step: The optimiser step that they belong to.
        """
        size = target.numel() * target.element_size()
        if not target.ndim or not target.numel() or target.is_complex() or self._bytes + size > HELD_BYTES:
            return
        if any(name == stream and at == step for name, at, *_ in reversed(self._held[-4:])):
            return
        self._bytes += size
        target = target.detach() if target.requires_grad else target
        self._held.append((stream, step, target, version_of(target)))

    def flush(self, reads: DeferredReads, deliver: Callable[[str, Moments, Moments], None]) -> None:
        """Reduce what is held: batches of one shape at once.

        Args:
            reads: Where the moments are read from the device.
            deliver: Called with the stream, the steps, shape (n,), and the rows of `moments`, shape (n, 5).
        """
        held, self._held, self._bytes = self._held, [], 0
        streams: dict[str, list[tuple[int, torch.Tensor]]] = defaultdict(list)
        alike: dict[tuple[Any, ...], list[tuple[str, int, torch.Tensor]]] = defaultdict(list)
        for stream, step, target, version in held:
            if version_of(target) == version:
                alike[target.device, target.dtype, target.shape].append((stream, step, target))
        with torch.no_grad():
            for some in alike.values():
                rows = moments(torch.stack([_thinned(target) for *_, target in some]))
                for (stream, step, _), row in zip(some, rows, strict=True):
                    streams[stream].append((step, row))
        for stream, found in streams.items():
            found.sort(key=lambda pair: pair[0])
            steps = np.asarray([step for step, _ in found], np.int64)

            def arrived(arrays: list[Moments], stream: str = stream, steps: Moments = steps) -> None:
                deliver(stream, steps, arrays[0])

            device = found[0][1].device
            reads.read([torch.stack([row.to(device) for _, row in found])], arrived)


def moments(batches: torch.Tensor) -> torch.Tensor:
    """Of each batch of targets y: (mean, variance, mean of y log y, variance of the samples' means, samples).

    The third is what a Poisson likelihood can come to at most, less the mean; NaN where a target is below 0.

    Args:
        batches: Shape (n, samples, numbers of a sample).

    Returns:
        Shape (n, 5).
    """
    y = batches.float()
    flat = y.flatten(1)
    positive = torch.special.xlogy(flat, flat).mean(1)
    samples = torch.full_like(positive, y.shape[1])
    within = y.mean(2).var(1, unbiased=False)
    return torch.stack([flat.mean(1), flat.var(1, unbiased=False), positive, within, samples], 1)


def _thinned(target: torch.Tensor) -> torch.Tensor:
    """Samples and numbers of them at equal distances, shape (samples, numbers), `ENTRIES` at most."""
    rows = target.detach().reshape(len(target), -1)
    rows = rows[:: -(-len(rows) // ENTRIES)]
    return rows[:, :: -(-rows.numel() // ENTRIES)]
