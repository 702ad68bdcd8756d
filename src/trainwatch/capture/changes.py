"""What changes in the makeup of a run while it goes on: layers come and go, an optimiser takes over from another."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch

from trainwatch.capture import wiring

IN_A_ROW = 2  # steps of another optimiser without one of the watched: within a step, one may call another (SAM)


class Changes:
    """Notices parameters that come and go, and optimisers that take over from watched ones.

    Args:
        models: The models watched.
        optimizers: The optimisers by name, as they are now at any time.
    """

    def __init__(self, models: wiring.Models, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self._models, self._optimizers = models, optimizers
        self._measured = {key: wiring.parameters_in(o) for key, o in optimizers.items()}  # held: an id is used again
        self._ids = {key: set(map(id, some)) for key, some in self._measured.items()}
        self._held = self._present()
        self._since: dict[str, dict[str, int]] = {key: {} for key in optimizers}
        self._others: weakref.WeakKeyDictionary[torch.optim.Optimizer, str | None] = weakref.WeakKeyDictionary()
        self._in_a_row = dict.fromkeys(optimizers, 0)

    def changed(self) -> bool:
        """Whether parameters came or went, in a model or an optimiser, since this was last asked."""
        present = self._present()
        same = [len(some) for some in present] == [len(some) for some in self._held] and all(
            a is b for now, before in zip(present, self._held, strict=True) for a, b in zip(now, before, strict=True)
        )
        self._held = present
        return not same

    def joined(self, step: int) -> dict[str, list[dict[str, Any]]]:
        """Of each optimiser the parameters of the models that it holds now and did not hold at the start.

        Args:
            step: Optimiser steps taken.

        Returns:
            Optimiser -> name, number of entries, and the steps taken when it was first seen there.
        """
        found = {}
        for key, optimizer in self._optimizers.items():
            here = set(map(id, wiring.parameters_in(optimizer))) - self._ids[key]
            names = {n: p.numel() for n, p in wiring.parameters_of(self._models).items() if id(p) in here}
            self._since[key] = {name: self._since[key].get(name, step) for name in names}
            found[key] = [{"name": n, "numel": count, "since": self._since[key][n]} for n, count in names.items()]
        return {key: some for key, some in found.items() if some}

    def stepped(self, key: str) -> None:
        """A watched optimiser has stepped."""
        self._in_a_row[key] = 0

    def another_stepped(self, optimizer: torch.optim.Optimizer) -> str | None:
        """An optimiser that is not watched has stepped.

        Returns:
            Name of the watched one that it took over from: both hold a parameter, and the watched one rests.
        """
        if optimizer not in self._others:
            theirs = set(map(id, wiring.parameters_in(optimizer)))
            self._others[optimizer] = next((key for key, ids in self._ids.items() if ids & theirs), None)
        key = self._others[optimizer]
        if key is None:
            return None
        self._in_a_row[key] += 1
        if self._in_a_row[key] < IN_A_ROW:
            return None
        self._others.clear()
        return key

    def _present(self) -> list[list[torch.Tensor]]:
        return [[*wiring.parameters_of(self._models).values()], *map(wiring.parameters_in, self._optimizers.values())]
