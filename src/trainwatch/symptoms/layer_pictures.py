"""The charts of layers: whether their weights go anywhere, and how alive what they compute is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from trainwatch.figures import Bars, Figure
from trainwatch.record import RunRecord
from trainwatch.symptoms.activity import activities
from trainwatch.symptoms.useful_motion import gradient_signal, layer_motions

LAYERS = 40  # more cannot be read
T = TypeVar("T")


def layer_pictures_of(record: RunRecord) -> dict[str, Figure]:
    """Chart data on layers, in order of execution, evenly thinned to `LAYERS`.

    Returns:
        ``motion`` (how far and how straight each weight moved, and signal over noise of its gradient) and ``activity``
        (units that are dead, entries that are saturated, and the root mean square of each activation), as far as they
        were measured.
    """
    figures: dict[str, Figure | None] = {"motion": _motion(record), "activity": _activity(record)}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _motion(record: RunRecord) -> Bars | None:
    moved = sorted(record.memo(layer_motions) or (), key=lambda m: m.parameter["order"])
    if not moved:
        return None
    moved = _some(moved)
    groups = {
        "distance from the start / weight": tuple(m.distance for m in moved),
        "straightness (1: random walk)": tuple(m.straightness for m in moved),
    }
    signal = record.memo(gradient_signal)
    if signal is not None:
        place = {p["name"]: i for i, p in enumerate(record.facts["parameters"])}
        ratios = [float(signal.ratio[place[m.parameter["name"]]]) for m in moved]
        groups["gradient, signal / noise"] = tuple(ratios)
    return Bars("Useful motion of each weight, first layer on top", tuple(m.parameter["name"] for m in moved), groups)


def _activity(record: RunRecord) -> Bars | None:
    seen = _some(record.memo(activities))
    if not seen:
        return None
    groups = {
        "dead units": tuple(a.dead if a.rectifies else np.nan for a in seen),
        "saturated entries": tuple(a.flat if a.squashes else np.nan for a in seen),
        "root mean square": tuple(a.rms for a in seen),
    }
    shown = {name: values for name, values in groups.items() if np.isfinite(values).any()}
    title = f"Health of each activation at step {seen[0].step}, first on top"
    return Bars(title, tuple(a.site for a in seen), shown) if shown else None


def _some(layers: Sequence[T]) -> list[T]:
    return [layers[i] for i in np.linspace(0, len(layers) - 1, min(LAYERS, len(layers))).astype(int)]
