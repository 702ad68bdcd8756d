"""The charts of a report, drawn from a record alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainwatch.figures import Bars, Curve, Figure, Heatmap
from trainwatch.record import RunRecord
from trainwatch.record.series import Array
from trainwatch.symptoms.class_pictures import class_pictures_of
from trainwatch.symptoms.curves import Line, noise_band, thin, validation_curve
from trainwatch.symptoms.landscapes import landscapes_of
from trainwatch.symptoms.layer_pictures import layer_pictures_of
from trainwatch.symptoms.norms import norms_figure
from trainwatch.symptoms.sparsity import sparsity_figure
from trainwatch.symptoms.stability import churn_figure

COLUMNS = 100  # most columns of a heatmap
ROWS = 128  # most rows of a heatmap
CLASSES = 64  # more bars than that cannot be read
SAMPLES = 5  # rows looked at per column of a heatmap
LOG_RANGE = 30.0  # a loss that spans more than this factor is drawn on a log scale
DEPTH_KINDS = ("weight", "recurrent")


def figures_of(record: RunRecord) -> dict[str, Figure]:
    """Chart data of a record.

    Args:
        record: The run, finished or not.

    Returns:
        ``loss`` (training and validation losses), ``gradients`` (RMS gradient of each weight tensor over depth and
        time), ``classes`` (share and recall of each class), ``sparsity`` (zeros over the L1 coefficient), ``churn``
        (predictions that change from pass to pass) and ``norms`` (of weights and gradients over time), as far as they
        were recorded, and those of `class_pictures_of`, `layer_pictures_of` and `landscapes_of`.
    """
    figures: dict[str, Figure | None] = {
        "loss": _losses(record),
        "gradients": _gradients(record),
        "classes": _classes(record),
        "sparsity": sparsity_figure(record),
        "churn": churn_figure(record),
        "norms": norms_figure(record),
    }
    figures |= class_pictures_of(record) | layer_pictures_of(record) | landscapes_of(record)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _losses(record: RunRecord) -> Curve | None:
    lines: dict[str, Line] = {}
    marks: dict[int, str] = {}
    for stream in _train_streams(record):
        steps, values = _history(record, "train_loss", stream)
        lines[f"train {stream}"] = thin(steps, values)
        if np.isinf(values).any():
            marks[int(steps[np.argmax(np.isinf(values))])] = "first loss that is not finite"
    for stream in record.keys("val_loss"):
        lines[stream] = thin(*_history(record, "val_loss", stream))
    best = min(lines.get(_primary(record), ()), key=lambda point: point[1], default=None)
    if best is not None:
        marks.setdefault(best[0], "lowest validation loss")
    lines = {name: line for name, line in lines.items() if line}
    if not lines:
        return None
    drawn = [value for line in lines.values() for _, value in line]
    wide = min(drawn) > 0 and max(drawn) > LOG_RANGE * min(drawn)
    title, bands = _noise(record, lines)
    return Curve(
        f"Loss{title}", y_label="loss", lines=lines, marks=dict(sorted(marks.items())), log_y=wide, bands=bands
    )


def _noise(record: RunRecord, lines: dict[str, Line]) -> tuple[str, dict[str, tuple[tuple[int, float, float], ...]]]:
    curve = record.memo(validation_curve)
    band = noise_band(curve) if curve is not None and curve.stream in lines else ()
    if curve is None or not band:
        return "", {}
    of = " of the difference from the lowest pass" if curve.paired else ""
    return f" (shaded: two standard errors{of})", {curve.stream: band}


def _train_streams(record: RunRecord) -> list[str]:
    """Training streams, the one with the criterion of validation first; `root` only if it says something of its own."""
    streams = record.keys("train_loss")
    criterion = record.facts.get("validation", {}).get(_primary(record), {}).get("criterion")
    if len(streams) == 2 and "root" in streams:
        streams.remove("root")  # one criterion, perhaps scaled: the same curve again
    return sorted(streams, key=lambda s: (s != criterion, s == "root"))


def _primary(record: RunRecord) -> str:
    """The validation stream that the user means, or the first one."""
    streams: dict[str, Any] = record.facts.get("validation", {})
    named = [name for name, facts in streams.items() if facts.get("primary")]
    return next(iter([*named, *record.keys("val_loss"), *record.keys("val_confusion")]), "")


def _gradients(record: RunRecord) -> Heatmap | None:
    known, optimizers = record.facts.get("parameters", []), record.facts.get("optimizers", {})
    keys = [k for k in record.keys("grad_norm") if known and k in optimizers]  # else nobody knows whose norms they are
    tables = [(_history(record, "grad_norm", k), optimizers[k]["parameters"]) for k in keys]
    seen = np.unique(np.concatenate([np.zeros(0, int), *(steps for (steps, _), _ in tables)]))
    if not len(seen):
        return None
    edges = seen[np.linspace(0, len(seen) - 1, min(COLUMNS, len(seen))).astype(int)]
    rows: list[tuple[int, int, Array]] = []
    for (steps, norms), columns in tables:
        depth = [(i, p) for i, p in enumerate(columns) if known[p]["kind"] in DEPTH_KINDS and known[p]["numel"]]
        cells = _cells(steps, norms, edges, [i for i, _ in depth])
        rows += [(known[p]["order"], p, cells[:, j] / np.sqrt(known[p]["numel"])) for j, (_, p) in enumerate(depth)]
    if not rows:
        return None
    rows.sort(key=lambda row: row[:2])
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int)]
    return Heatmap(
        title="Gradient of each weight, first layer on top",
        rows=tuple(known[p]["name"] for _, p, _ in rows),
        columns=tuple(int(e) for e in edges),
        values=tuple(tuple(values.tolist()) for _, _, values in rows),
        value_label="RMS gradient",
    )


def _cells(steps: Array, norms: Array, edges: Array, columns: list[int]) -> Array:
    """Median gradient norm of some rows between an edge and the next; NaN where none is finite."""
    starts = np.searchsorted(steps, edges)
    ends = np.append(starts[1:], len(steps))
    picks = starts + np.linspace(0, np.maximum(ends - starts - 1, 0), SAMPLES).astype(int)
    some = norms[np.minimum(picks, len(steps) - 1)[:, :, None], np.array(columns, int)]
    ordered = np.sort(np.where(np.isfinite(some), some, np.nan), axis=0)  # NaN last
    middle = np.maximum(np.isfinite(ordered).sum(0, keepdims=True) - 1, 0) // 2
    return np.asarray(np.where((ends > starts)[:, None], np.take_along_axis(ordered, middle, 0)[0], np.nan))


def _classes(record: RunRecord) -> Bars | None:
    groups: dict[str, Array] = {}
    for key in record.keys("train_classes")[:1]:
        counts = _history(record, "train_classes", key)[1].sum(0)
        samples = counts[-1] if key == "labels" else counts[:-1].sum()
        groups["share of training samples"] = counts[:-1] / max(samples, 1)
    stream = _primary(record)
    confusion = record.series("val_confusion", stream)
    if confusion is not None and len(confusion):
        last = confusion.values[-1].astype(float)
        of_class = last.sum(1)
        groups["validation recall"] = np.where(of_class > 0, np.diag(last) / np.maximum(of_class, 1), np.nan)
    width = max((len(g) for g in groups.values()), default=0)
    if not 0 < width <= CLASSES:
        return None
    names = record.facts.get("class_names") or []
    labels = tuple(str(names[i]) if i < len(names) else str(i) for i in range(width))
    bars = {n: np.pad(g.astype(float), (0, width - len(g)), constant_values=np.nan) for n, g in groups.items()}
    return Bars(title="Classes", labels=labels, groups={name: tuple(bar.tolist()) for name, bar in bars.items()})


def _history(record: RunRecord, quantity: str, key: str) -> tuple[Array, Array]:
    series = record.series(quantity, key)
    assert series is not None, f"{key!r} was listed under {quantity!r}"
    return series.history()
