"""Learning rates: a row where one changed, and nothing in between."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch

from trainwatch.capture.wiring import learning_rates
from trainwatch.record import RunRecord


class Rates:
    """Follows the learning rate of every parameter group."""

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self._optimizers = optimizers
        self._last: dict[str, list[float]] = {}
        self._rows: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def note(self, key: str, step: int) -> None:
        """Compare the rates of an optimiser with the last ones."""
        optimizer = self._optimizers[key]
        if [group.get("lr") for group in optimizer.param_groups] == self._last.get(key):
            return
        rates = learning_rates(optimizer)
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
