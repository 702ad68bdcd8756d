"""Gradients free of size: RMS per parameter tensor, over depth in execution order and over the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array

FIRST = 32  # rows kept at the start of a run
ROWS = 512  # rows kept altogether
BLOCKS = 8  # parts of the run that a profile is measured in
LAYERS = 32  # most layers that a slope is fitted to
NORMALISING = ("BatchNorm", "InstanceNorm", "LayerNorm", "GroupNorm", "RMSNorm", "SyncBatchNorm")


@dataclass(frozen=True)
class Gradients:
    """Gradient norms of the parameters of one optimiser, thinned in time.

    Attributes:
        parameters: Facts of each column's parameter.
        steps: Optimiser steps of the rows: the first ones all, the rest at equal distances.
        norms: L2 norms, shape (n, P); NaN where there was no gradient, infinity where it was not finite.
        total: Norm of all gradients together, shape (n,).
    """

    parameters: tuple[dict[str, Any], ...]
    steps: Array = field(repr=False)
    norms: Array = field(repr=False)
    total: Array = field(repr=False)


@dataclass(frozen=True)
class Profile:
    """RMS gradients of one kind of parameter over depth, from the first step on.

    Attributes:
        kind: ``weight`` or ``bias``.
        parameters: Facts of the parameters, the first layer first.
        steps: First step of each block; the first block is the first row alone.
        log_rms: Decimal logarithm of the RMS gradient, shape (blocks, layers); NaN where zero, absent or not finite.
        decades: Rise of the gradient from the last layer to the first along the fitted line, per block: negative
            where it shrinks on its way back; NaN where fewer than three layers had one.
        steady: Share of neighbouring layers between which it goes the way of the line, per block.
        error: Standard error of `decades` at the first row, from the scatter about the line.
    """

    kind: str
    parameters: tuple[dict[str, Any], ...]
    steps: Array
    log_rms: Array = field(repr=False)
    decades: Array
    steady: Array
    error: float

    def per_layer(self, block: int = 0) -> float:
        """Factor by which one layer changes the gradient on its way back."""
        return float(10 ** (self.decades[block] / max(len(self.parameters) - 1, 1)))


def gradients_of(record: RunRecord) -> Gradients | None:
    """The gradients of a run with one optimiser; None where there are several, or none recorded."""
    keys = record.keys("grad_norm")
    columns = record.facts.get("optimizers", {}).get(keys[0] if keys else "", {}).get("parameters")
    if len(keys) != 1 or not columns:
        return None
    series = record.series("grad_norm", keys[0])
    steps, norms = series.history() if series is not None else (np.zeros(0), np.zeros((0, 0)))
    if not len(steps):
        return None
    n = len(steps)
    rows = np.unique(np.append(np.arange(min(FIRST, n)), np.linspace(0, n - 1, min(ROWS, n)).astype(int)))
    some = norms[rows].astype(float)
    present = np.where(np.isnan(some), 0.0, some)
    total = np.sqrt((present**2).sum(1))
    known = record.facts["parameters"]
    return Gradients(tuple(known[i] for i in columns), steps[rows], some, total)


def profiles_of(record: RunRecord) -> dict[str, Profile]:
    """Kind of parameter -> its profile over depth, for those kinds that at least three layers have.

    Biases that a normalisation layer follows are left out: it cancels them, and what gradient they have is rounding.
    """
    gradients = record.memo(gradients_of)
    if gradients is None:
        return {}
    cancelled = _before_normalisation(record.facts.get("modules", []))
    found = {}
    for kind in ("weight", "bias"):
        columns = [
            i
            for i, p in enumerate(gradients.parameters)
            if p["kind"] == kind and p["order"] is not None and p["order"] >= 0 and p["numel"]
            if kind != "bias" or p["module"] not in cancelled
        ]
        columns = [i for i in columns if (gradients.norms[:, i] > 0).any()]
        columns.sort(key=lambda i: (gradients.parameters[i]["order"], i))
        if len(columns) > LAYERS:
            columns = [columns[i] for i in np.linspace(0, len(columns) - 1, LAYERS).astype(int)]
        if len(columns) >= 3:
            found[kind] = _profile(kind, gradients, columns)
    return found


def _profile(kind: str, gradients: Gradients, columns: list[int]) -> Profile:
    parameters = tuple(gradients.parameters[i] for i in columns)
    rms = gradients.norms[:, columns] / np.sqrt([p["numel"] for p in parameters])
    usable = np.where(np.isfinite(rms) & (rms > 0), rms, np.nan)
    cuts = np.unique(np.append(0, np.linspace(1, len(rms), BLOCKS + 1).astype(int)))[:-1]
    ends = np.append(cuts[1:], len(rms))
    log_rms = np.log10([_medians(usable[a:b]) for a, b in zip(cuts, ends, strict=True)])
    first, second = np.triu_indices(len(columns), 1)
    slopes = (log_rms[:, second] - log_rms[:, first]) / (second - first)
    enough = np.isfinite(log_rms).sum(1) >= 3
    slope = np.where(enough, _medians(slopes.T), np.nan)
    step = np.diff(log_rms, axis=1)
    with np.errstate(invalid="ignore"):
        along = (step * np.sign(slope)[:, None] > 0).sum(1)
    steady = along / np.maximum(np.isfinite(step).sum(1), 1)
    line = log_rms[0] - slope[0] * np.arange(len(columns))
    scatter = float(_medians(np.abs(line - _medians(line[:, None]))[:, None])[0]) * 1.4826
    spread = float(np.sqrt((len(columns) - 1) * 12 / (len(columns) * (len(columns) + 1))))  # of a fitted slope x (L - 1)
    return Profile(kind, parameters, gradients.steps[cuts], log_rms, -slope * (len(columns) - 1), steady, scatter * spread)


def _medians(rows: Array) -> Array:
    """Medians of the columns, NaN left out; NaN for a column without numbers. Far faster than `numpy.nanmedian`."""
    ordered = np.sort(rows, axis=0)  # NaN last
    count = (~np.isnan(ordered)).sum(0, keepdims=True)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(rows) - 1)
    return np.asarray((np.take_along_axis(ordered, low, 0) + np.take_along_axis(ordered, high, 0))[0] / 2)


def _before_normalisation(modules: list[dict[str, Any]]) -> set[str]:
    names = sorted(modules, key=lambda m: m["order"])
    return {a["name"] for a, b in zip(names, names[1:], strict=False) if b["type"].startswith(NORMALISING)}
