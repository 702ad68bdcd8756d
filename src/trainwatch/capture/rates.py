"""Learning rates: a row where one changed, and nothing in between."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from trainwatch.capture.wiring import learning_rates
from trainwatch.record import RunRecord


class Rates:
    """Follows the learning rate of every parameter group."""

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self._optimizers = optimizers
        self._seen: dict[str, list[Any]] = {}  # as they stand in the optimiser: numbers or tensors
        self._last: dict[str, list[float]] = {}
        self._rows: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def changed(self, key: str) -> bool:
        """Whether the rates of an optimiser may differ from those noted last; never waits for a device.

        A rate kept in a tensor is the same object for good: lists compare such entries by identity first.
        """
        return [group.get("lr") for group in self._optimizers[key].param_groups] != self._seen.get(key)

    def note(self, key: str, step: int) -> None:
        """Note the rates of an optimiser where they differ from the last ones."""
        groups = self._optimizers[key].param_groups
        on_host = any(isinstance(g.get("lr"), torch.Tensor) and g["lr"].device.type == "cpu" for g in groups)
        # A tensor on the host changes in place and can be read at no cost: look at it every time.
        self._seen[key] = [] if on_host else [g.get("lr") for g in groups]
        rates = learning_rates(self._optimizers[key])
        if rates is None or rates == self._last.get(key):
            return
        self._last[key] = rates
        for group, rate in enumerate(rates):
            self._rows[f"{key}/{group}"].append((step, rate))

    def flush(self, record: RunRecord) -> None:
        """Write the changes since the last flush."""
        rows, self._rows = self._rows, defaultdict(list)
        for key, changes in rows.items():
            steps, rates = zip(*changes, strict=True)
            record.append("lr", key, steps, rates)
