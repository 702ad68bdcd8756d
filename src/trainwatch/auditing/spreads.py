"""Histograms of the features that tell most: those that differ between the parts, miss values, go with the target."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwatch.auditing.samples import Samples
from trainwatch.figures import Histogram

Array = NDArray[Any]

SHOWN = 12
BINS = 30
LOOKED_AT = 20_000  # samples of each part
PIXELS = 64  # images whose pixels are counted one by one
NAMED = {"train": "training", "val": "validation"}


def features_figure(held: dict[str, Samples], first: Collection[str] = (), *, classes: bool) -> Histogram | None:
    """The target where it is a number, then features of rows by how much they tell, or measures of whole images.

    Args:
        held: Split -> samples.
        first: Features that tell most whatever is seen of them.
        classes: Whether the targets are classes.
    """
    columns = {split: _columns(part) for split, part in held.items()}
    names = [name for name in columns["train"] if all(name in some for some in columns.values())]
    if held["train"].layout == "rows":
        tells = {n: _tells({s: c[n] for s, c in columns.items()}, held["train"], classes) for n in names}
        names = sorted(names, key=lambda name: (name not in first, -tells[name]))
    shown = {name: {NAMED[s]: c[name] for s, c in columns.items()} for name in names[:SHOWN]}
    if not classes and (numbers := _targets(held)):
        shown = {"the target": numbers, **shown}
    binned = {name: _binned(groups) for name, groups in shown.items()}
    panels = {name: panel for name, panel in binned.items() if panel is not None}
    if not panels:
        return None
    of = f" ({SHOWN} of {len(names):,}, those that tell most)" if len(names) > SHOWN else ""
    return Histogram(
        title=f"{'Features' if held['train'].layout == 'rows' else 'Inputs'}{of}",
        edges={name: panel[0] for name, panel in panels.items()},
        shares={name: panel[1] for name, panel in panels.items()},
        notes={name: panel[2] for name, panel in panels.items() if panel[2]},
    )


def _columns(part: Samples) -> dict[str, Array]:
    rows = part.inputs[_some(len(part), LOOKED_AT)]
    if part.layout == "rows":
        names = part.feature_names or tuple(f"feature {i}" for i in range(rows.shape[1]))
        return {name: rows[:, i].astype(np.float64) for i, name in enumerate(names)}
    flat = rows[_some(len(rows), LOOKED_AT // 10)].astype(np.float64).reshape(min(len(rows), LOOKED_AT // 10), -1)
    what, whole = ("pixel", "an image") if part.layout == "images" else ("entry", "a sample")
    few = flat[_some(len(flat), PIXELS)].ravel()
    return {f"each {what}": few, f"mean of {whole}": flat.mean(1), f"deviation in {whole}": flat.std(1)}


def _targets(held: dict[str, Samples]) -> dict[str, Array]:
    values = {NAMED[split]: part.targets for split, part in held.items() if part.targets is not None}
    if any(v.ndim > 1 and v.shape[1] > 1 for v in values.values()):
        return {}
    return {name: v.ravel().astype(np.float64) for name, v in values.items()}


def _tells(groups: dict[str, Array], train: Samples, classes: bool) -> float:
    """How much there is to see of a feature: difference between the parts, missing values, bond with the target."""
    mine = groups["train"]
    missing = max(float((~np.isfinite(v)).mean()) for v in groups.values())
    apart = _distance(mine, groups["val"]) if "val" in groups else 0.0
    bond = 0.0
    if train.targets is not None and train.targets.ndim == 1:
        bond = _bond(mine, train.targets[_some(len(train), LOOKED_AT)], classes)
    return 2 * apart + missing + bond


def _distance(a: Array, b: Array) -> float:
    """Largest difference between the distributions (Kolmogorov and Smirnov)."""
    a, b = np.sort(a[np.isfinite(a)]), np.sort(b[np.isfinite(b)])
    if not len(a) or not len(b):
        return 1.0
    at = np.concatenate([a, b])
    below = np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)
    return float(np.abs(below).max())


def _bond(values: Array, targets: Array, classes: bool) -> float:
    """Share of the feature's variance that goes with the target, by classes or along a line."""
    known = np.isfinite(values)
    x, y = values[known], targets[known].astype(np.int64 if classes else np.float64)
    x = x / max(np.abs(x).max(initial=0), 1e-300)  # whose squares are numbers
    total = x.var() if len(x) else 0.0
    if total <= 0 or (not classes and y.std() <= 0):
        return 0.0
    if not classes:
        return float(np.corrcoef(x, y)[0, 1] ** 2)
    counts = np.bincount(y)
    means = np.bincount(y, x)[counts > 0] / counts[counts > 0]
    return float((counts[counts > 0] * (means - x.mean()) ** 2).sum() / len(x) / total)


def _binned(groups: dict[str, Array]) -> tuple[tuple[float, ...], dict[str, tuple[float, ...]], str] | None:
    """Edges, shares of each group, and what is not in the bins."""
    finite = {name: v[np.isfinite(v)] for name, v in groups.items()}
    seen = np.concatenate(list(finite.values()))
    if not len(seen):
        return None
    low, high = float(seen.min()), float(seen.max())
    if (seen == np.round(seen)).all() and high - low < BINS:
        edges = np.arange(low, high + 2) - 0.5  # a bin for each whole number
    else:
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    shares = {name: tuple((np.histogram(v, edges)[0] / max(len(v), 1)).tolist()) for name, v in finite.items()}
    lost = [
        f"{1 - len(finite[name]) / len(v):.1%} of {name} missing or infinite"
        for name, v in groups.items()
        if len(finite[name]) < len(v)
    ]
    return tuple(edges.tolist()), shares, "; ".join(lost)


def _some(count: int, most: int) -> Array:
    return np.unique(np.linspace(0, max(count - 1, 0), min(most, count)).astype(np.int64))
