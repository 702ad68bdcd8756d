"""The effective rank of each weight matrix at the end of a run: how far its layer could shrink (§2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from trainwatch.probes.bench import Bench

KIND = "rank"
QUANTITIES = ("weight_rank",)
AT_END = True
WORK = 1e11  # multiplications for all weights: one square matrix of 2,048, some two seconds on one core
ENERGY, ROUNDING = 0.9, 1e-9


def measure(bench: Bench) -> None:
    """Record the spectrum of each weight in three numbers, the cheapest first as far as `WORK` goes.

    A row of `weight_rank` has for each parameter, in the order of the facts, its stable rank, its entropy rank, and the
    number of singular values that keep `ENERGY` of the sum of squares. NaN for what is no weight or was left out.
    """
    facts = bench.record.facts.get("parameters", [])
    rows = np.full((len(facts), 3), np.nan)
    with bench.model() as model, torch.no_grad():
        parameters = dict(model.named_parameters())
        for place in _affordable(facts):
            if (weight := parameters.get(facts[place]["name"])) is not None:
                rows[place] = ranks(weight.reshape(len(weight), -1))
    if not np.isnan(rows).all():
        bench.record.append("weight_rank", "end", bench.step, rows)


def ranks(matrix: torch.Tensor) -> tuple[float, float, float]:
    """Stable rank, entropy rank, and singular values that keep `ENERGY`, of a matrix (rows, columns)."""
    wide = matrix.double() if matrix.device.type != "mps" else matrix.float()
    gram = wide.T @ wide if wide.shape[0] > wide.shape[1] else wide @ wide.T
    if not bool(torch.isfinite(gram).all()):
        return np.nan, np.nan, np.nan
    energies = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).cpu().numpy()
    total = float(energies.sum())
    if not total:
        return 0.0, 0.0, 0.0
    share = energies / total
    some = share[share > 0]
    return (
        float(1 / share[0]),
        float(np.exp(-(some * np.log(some)).sum())),
        float(np.searchsorted(share.cumsum(), ENERGY - ROUNDING) + 1),
    )


def _affordable(facts: list[dict[str, Any]]) -> Iterator[int]:
    """Places of the weights to look at, as many as can be paid for."""
    cost = {}
    for place, p in enumerate(facts):
        if p["kind"] in ("weight", "recurrent") and len(p["shape"]) > 1:
            rows, columns = p["shape"][0], p["numel"] // p["shape"][0]
            cost[place] = float(min(rows, columns)) ** 2 * (max(rows, columns) + 10 * min(rows, columns))
    spent = 0.0
    for place in sorted(cost, key=cost.__getitem__):
        spent += cost[place]
        if spent > WORK:
            return
        yield place
