"""Learning rates of a copied optimiser: its present ones, and the highest of the run, since they may have decayed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainwatch.record import RunRecord


def highest_rates(record: RunRecord, optimizer: torch.optim.Optimizer) -> list[float]:
    """The highest rate that each group had in the run; its present one where none was recorded."""
    keys = list(record.facts.get("optimizers") or {})
    found = []
    for i, group in enumerate(optimizer.param_groups):
        series = record.series("lr", f"{keys[0]}/{i}") if len(keys) == 1 else None
        found.append(float(series.history()[1].max() if series is not None and len(series) else group["lr"]))
    return found


def present_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """The rate of each group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    """Give each group of a copied optimiser its rate."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
