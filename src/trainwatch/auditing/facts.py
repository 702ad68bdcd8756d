"""What was read, as a report tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainwatch.auditing.samples import Samples

LISTED = 20  # problems with their places


def data_facts(parts: Sequence[Samples], task: str | None) -> dict[str, Any]:
    """The fact ``data``: of each part how many samples of what, the inventory of its files, and what went wrong.

    Args:
        parts: As they were read.
        task: What the targets are.
    """
    return {part.split: _part(part, task) for part in parts}


def _part(part: Samples, task: str | None) -> dict[str, Any]:
    inventory = dict(part.inventory or {})
    notes = inventory.pop("notes", [])
    first = [{"place": p.place, "what": p.what} for p in part.problems[:LISTED]]
    return {
        "source": part.source,
        "samples": len(part),
        "total": part.total,
        "layout": part.layout,
        "shape": list(part.inputs.shape[1:]),
        "dtype": part.inputs.dtype.name,
        "about": [_shape(part), part.inputs.dtype.name, _targets(part, task)],
        "notes": notes,
        "inventory": inventory,
        "problems": {"count": len(part.problems), "first": first},
    }


def _shape(part: Samples) -> str:
    if part.layout == "images":
        height, width, channels = part.inputs.shape[1:]
        return f"images of {width} x {height} pixels{f' in {channels} channels' if channels > 1 else ''}"
    if part.layout == "rows":
        features = part.inputs.shape[1]
        some = sum(part.categorical)
        return f"rows of {features:,} feature{'s' * (features != 1)}{f', {some:,} of them categories' if some else ''}"
    return f"arrays of shape {' x '.join(map(str, part.inputs.shape[1:]))}"


def _targets(part: Samples, task: str | None) -> str:
    values = part.targets
    if values is None:
        return "no targets"
    if task in ("binary", "multiclass"):
        counts = np.unique(values, return_counts=True)[1]
        return f"{len(counts):,} class{'es' * (len(counts) != 1)} of {_range(counts.min(), counts.max())} samples"
    if task == "multilabel":
        return f"{values.shape[1]:,} yes / no labels"
    return f"numbers to predict from {values.min():.4g} to {values.max():.4g}"


def _range(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
