"""Weights that an optimiser holds and no gradient ever reaches, and whether the loss depends on them all the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord


@dataclass(frozen=True)
class CutOff:
    """A layer without any gradient, changed at random in a copy.

    Attributes:
        module: Its name.
        change: Of the loss of a held batch, as a share of what it was.
        numel: Entries of its weights.
        step: Optimiser steps taken before.
    """

    module: str
    change: float
    numel: int
    step: int


def without_gradient(record: RunRecord) -> tuple[str, ...]:
    """Trainable weights of an optimiser that had no gradient in any step, for `RunRecord.memo`."""
    parameters, found = record.facts.get("parameters", []), []
    for key in record.keys("grad_norm"):
        series, known = record.series("grad_norm", key), record.facts.get("optimizers", {}).get(key, {})
        if series is None or not len(series):
            continue
        rows = series.history()[1]
        held = known.get("parameters", ())[: rows.shape[1]]
        found += [parameters[p] for i, p in enumerate(held) if np.isnan(rows[:, i]).all()]
    return tuple(p["name"] for p in found if p["trainable"] and len(p["shape"]) > 1)


def cut_off(record: RunRecord) -> list[CutOff]:
    """What was found of layers without any gradient, for `RunRecord.memo`; those alone that never got one since."""
    absent = record.memo(without_gradient)
    rows = {key: record.latest("cut_off", key) for key in record.keys("cut_off")}
    return [
        CutOff(key, float(row[1][0]), int(row[1][1]), row[0])
        for key, row in rows.items()
        if row is not None and any(name.rpartition(".")[0] == key for name in absent)
    ]
