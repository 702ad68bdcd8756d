"""Whether the motion of weights leads anywhere: how far each layer got, how straight, and by how clear a gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array
from trainwatch.symptoms.gradients import gradients_of, learning_rates

WEIGHTS = ("weight", "recurrent", "embedding")
SMALLEST = 32  # entries of a weight whose motion is compared with that of others


@dataclass(frozen=True)
class LayerMotion:
    """How one weight moved over a run.

    Attributes:
        parameter: Its facts.
        group: The optimiser's group that holds it.
        rate: Mean learning rate of that group.
        gradient: Median of its gradient's root mean square over the run; 0 where it never had one.
        update: Length of a single update over that of the weight; NaN where none was seen.
        distance: From where it began, over its length there.
        straightness: Distance over path, times the root of the number of stretches: about 1 for a random walk, that
            root for a straight line. NaN where it did not move.
    """

    parameter: dict[str, Any] = field(repr=False)
    group: int
    rate: float
    gradient: float
    update: float
    distance: float
    straightness: float

    @property
    def module(self) -> str:
        return str(self.parameter["module"] or "model")


def layer_motions(record: RunRecord) -> list[LayerMotion] | None:
    """The motion of each weight that is trained, for `RunRecord.memo`; None where it was not followed to the end."""
    gradients = record.memo(gradients_of)
    series = record.series("motion", gradients.key) if gradients is not None else None
    if gradients is None or series is None or not len(series):
        return None
    steps, rows = series.history()
    every = float(series.provenance.get("every", 1))
    if steps[-1] < record.steps - every:  # it could be followed no longer
        return None
    update, (_, distance, path, _) = _usual(rows[:, :, 0]), rows[-1].astype(float).T
    known = np.isfinite(path) & (path > 0)
    straight = np.divide(distance, path, out=np.full(len(path), np.nan), where=known)
    straight = straight * np.sqrt(max(1.0, steps[-1] / every))
    norms = np.where(np.isfinite(gradients.norms), gradients.norms, 0.0)
    optimizer = gradients.optimizer
    rates = [float(learning_rates(record, gradients.steps, g).mean()) for g in range(len(optimizer["groups"]))]
    owner = {p: g for g, group in enumerate(optimizer["groups"]) for p in group["parameters"]}
    found = []
    for i, (place, p) in enumerate(zip(optimizer["parameters"], gradients.parameters, strict=True)):
        trained = p["trainable"] and place in owner
        if p["kind"] in WEIGHTS and len(p["shape"]) > 1 and p["numel"] >= SMALLEST and trained:
            rms = float(np.median(norms[:, i])) / p["numel"] ** 0.5
            some = (rates[owner[place]], rms, update[i], distance[i], straight[i])
            found.append(LayerMotion(p, owner[place], *map(float, some)))
    return found


@dataclass(frozen=True)
class GradientSignal:
    """The latest comparison of the held batches' gradients.

    Attributes:
        step: Optimiser steps before it.
        batches: How many were compared.
        ratio: For each parameter of the facts, the norm of the mean gradient over what it would be, about, if batches
            agreed on nothing; infinite where they agree entirely, NaN where there is no gradient.
    """

    step: int
    batches: int
    ratio: Array = field(repr=False)


def gradient_signal(record: RunRecord) -> GradientSignal | None:
    """Signal and noise of each gradient, for `RunRecord.memo`; None where no probe compared batches."""
    series = record.series("gradient_signal", "train")
    if series is None or not len(series):
        return None
    batches = int(series.provenance["batches"])
    mean, spread = series.values[-1].astype(float).T
    noise = spread / np.sqrt(batches)
    known = np.isfinite(mean) & np.isfinite(noise)
    ratio = np.where(known & (mean > 0), np.inf, np.nan)
    ratio = np.divide(mean, noise, out=ratio, where=known & (noise > 0))
    return GradientSignal(int(series.last_step), batches, ratio)


def weight_ranks(record: RunRecord) -> list[tuple[dict[str, Any], int, int]]:
    """(facts, singular values that keep nine tenths of the energy, all of them) of each weight that was looked at."""
    measured = record.latest("weight_rank", "end")
    if measured is None:
        return []
    found = []
    for p, row in zip(record.facts.get("parameters", ()), measured[1], strict=False):
        if np.isfinite(row[2]):
            found.append((p, round(float(row[2])), min(p["shape"][0], p["numel"] // p["shape"][0])))
    return found


def _usual(rows: Array) -> Array:
    """Median over the rows of each column, without what is no number; NaN where nothing is."""
    return np.array([np.median(c[np.isfinite(c)]) if np.isfinite(c).any() else np.nan for c in rows.astype(float).T])
