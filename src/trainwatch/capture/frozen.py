"""Parameters that an optimiser holds and that require no gradient (§11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.shards import local

MOST = 1024  # entries of a parameter that are followed


class Frozen:
    """Notes since when parameters of one optimiser are frozen, and how far they get from there.

    They are looked at as their own optimiser's step leaves them: nets that train in turn are frozen for one another's
    steps, never for their own.

    Args:
        parameters: Of the optimiser, by their places in the facts.
    """

    def __init__(self, parameters: Mapping[int, torch.Tensor]) -> None:
        self._parameters = dict(parameters)
        self._since: dict[int, int] = {}
        self._was: dict[int, torch.Tensor] = {}
        self._moved: dict[int, float] = {}

    def look(self, step: int) -> None:
        """Note what is frozen after a step."""
        frozen = [place for place, p in self._parameters.items() if not p.requires_grad]
        if frozen or self._since:
            self._since = {place: self._since.get(place, step) for place in frozen}
            self._was = {i: self._was[i] if i in self._was else _entries(self._parameters[i]) for i in frozen}

    def loaded(self) -> None:
        """Weights were loaded: the way there is none of the optimiser's."""
        self._was = {place: _entries(self._parameters[place]) for place in self._was}

    def flush(self, reads: DeferredReads, write: Callable[[list[dict[str, Any]]], None]) -> None:
        """Measure how far what is frozen has got, and tell of all of it as soon as the values are there.

        Args:
            reads: Brings values from the device.
            write: Takes, for each frozen parameter, its place, the step at which it was first seen frozen, whether it
                still has a gradient, and the furthest that it was seen from where it was then, over its length.
        """
        some = [place for place in self._since if self._parameters[place].grad is not None]
        since = dict(self._since)

        def arrived(values: list[NDArray[Any]]) -> None:
            for place, (distance, length) in zip(some, values, strict=True):
                ratio = float(distance / length) if length else 0.0
                self._moved[place] = max(ratio, self._moved.get(place, 0.0))
            write(
                [
                    {"parameter": place, "since": at, "gradient": place in some, "moved": self._moved.get(place, 0.0)}
                    for place, at in since.items()
                ]
            )

        with torch.no_grad():
            reads.read([_distance(_entries(self._parameters[i]), self._was[i]) for i in some], arrived)


def _entries(parameter: torch.Tensor) -> torch.Tensor:
    flat = local(parameter.detach()).flatten()
    return flat[:: -(-len(flat) // MOST) or 1].clone()


def _distance(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    norm = torch.linalg.vector_norm
    return torch.stack([norm((now - before).float()), norm(before.float())])
