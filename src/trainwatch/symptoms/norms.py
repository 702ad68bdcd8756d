"""L0, L1, L2 and L-infinity of each weight and of its gradient, over the run, in one notation (§5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainwatch.figures import Heatmap
from trainwatch.record import RunRecord
from trainwatch.record.series import Array

LAYERS = 12  # in figure and facts, at even distances over depth
COLUMNS = 100
WEIGHT = ("|w|0", "|w|1", "|w|2", "|w|inf")
GRADIENT = ("|g|0", "|g|1", "|g|2", "|g|inf")


def norms_of(rows: Array, numel: float) -> Array:
    """L0, L1, L2 and L-infinity of a tensor, from what `weights` holds of some of its entries.

    Args:
        rows: Mean absolute value, root mean square, largest absolute value, share of exact zeros; shape (..., >= 4).
        numel: Entries of the whole tensor, for which those looked at stand. Its largest is at least theirs.

    Returns:
        Shape (..., 4).
    """
    mean, rms, largest, zeros = np.moveaxis(np.asarray(rows, float)[..., :4], -1, 0)
    return np.stack([(1 - zeros) * numel, mean * numel, rms * numel**0.5, largest], -1)


def norms_over_time(record: RunRecord) -> dict[str, tuple[Array, Array]]:
    """Steps, shape (T,), and norms, shape (T, 8), of up to `LAYERS` weights in order of execution.

    The last four are those of the gradient before clipping, at the last step before that was looked at; NaN where none
    was. For `RunRecord.memo`.
    """
    known: list[dict[str, Any]] = record.facts.get("parameters", [])
    layers = []
    for key in record.keys("weights"):
        columns = record.facts.get("optimizers", {}).get(key, {}).get("parameters", [])
        held = [(i, place) for i, place in enumerate(columns) if place < len(known)]
        weights = [(i, place) for i, place in held if len(known[place].get("shape", ())) > 1]
        layers += [(int(known[place].get("order") or 0), place, key, i) for i, place in weights]
    layers.sort()
    some = [layers[n] for n in np.linspace(0, len(layers) - 1, min(LAYERS, len(layers))).astype(int)]
    found = {}
    for key in dict.fromkeys(key for *_, key, _ in some):
        steps, rows = record.series("weights", key).history()  # type: ignore[union-attr]
        two = _at(record, "grad_norm", key, steps, (rows.shape[1],))[..., None]
        others = _at(record, "other_grad_norms", key, steps, (rows.shape[1], 3))
        gradients = np.concatenate([others[..., :2], two, others[..., 2:]], -1)
        for place, i in ((place, i) for _, place, other, i in some if other == key):
            table = np.column_stack([norms_of(rows[:, i], known[place]["numel"]), gradients[:, i]])
            found[place] = (steps, table)
    return {known[place]["name"]: found[place] for _, place, *_ in some}


def norms_figure(record: RunRecord) -> Heatmap | None:
    """Each norm over that at the first look, a row a norm and layer; None where weights were not followed."""
    shown = record.memo(norms_over_time)
    if not shown:
        return None
    seen = np.unique(np.concatenate([steps for steps, _ in shown.values()]))
    edges = seen[np.linspace(0, len(seen) - 1, min(COLUMNS, len(seen))).astype(int)]
    rows = []
    for name, (steps, table) in shown.items():
        places = np.searchsorted(steps, edges)
        at = np.where((places < len(steps))[:, None], table[np.minimum(places, len(steps) - 1)], np.nan)
        for norm, values in zip((*WEIGHT, *GRADIENT), (at / _first(table)).T, strict=True):
            if np.isfinite(values).any():
                rows.append((f"{norm} {name}", tuple(values.tolist())))
    if not rows:
        return None
    return Heatmap(
        title="Norms of weights w and their gradients g over those at the first look",
        rows=tuple(name for name, _ in rows),
        columns=tuple(int(e) for e in edges),
        values=tuple(values for _, values in rows),
        value_label="ratio",
    )


def norms_at_end(record: RunRecord) -> dict[str, dict[str, float]]:
    """Name of a weight -> notation -> the norm at the last look."""
    return {
        name: {norm: float(v) for norm, v in zip((*WEIGHT, *GRADIENT), table[-1], strict=True) if np.isfinite(v)}
        for name, (_, table) in record.memo(norms_over_time).items()
    }


def _first(table: Array) -> Array:
    """The first value of each column that is finite and above zero; NaN where there is none."""
    good = np.isfinite(table) & (table > 0)
    return np.where(good.any(0), np.take_along_axis(table, good.argmax(0)[None], 0)[0], np.nan)


def _at(record: RunRecord, quantity: str, key: str, steps: Array, shape: tuple[int, ...]) -> Array:
    """What was measured last before each of some steps, shape (T, *shape)."""
    series = record.series(quantity, key)
    found = np.full((len(steps), *shape), np.nan)
    if series is None or not len(series):
        return found
    at, rows = series.history()
    if rows.shape[1:] != shape:
        return found
    places = np.searchsorted(at, steps) - 1
    found[places >= 0] = rows[places[places >= 0]]
    return found
