"""The charts of a report, drawn from a record alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainwatch.figures import Bars, Curve, Figure, Heatmap
from trainwatch.record import RunRecord
from trainwatch.record.series import Array, Series

POINTS = 200  # most points of a line
COLUMNS = 100  # most columns of a heatmap
ROWS = 128  # most rows of a heatmap
CLASSES = 64  # more bars than that cannot be read
SAMPLES = 5  # rows looked at per column of a heatmap
LOG_RANGE = 30.0  # a loss that spans more than this factor is drawn on a log scale
DEPTH_KINDS = ("weight", "recurrent")

Line = tuple[tuple[int, float], ...]


def figures_of(record: RunRecord) -> dict[str, Figure]:
    """Chart data of a record.

    Args:
        record: The run, finished or not.

    Returns:
        ``loss`` (training and validation losses), ``gradients`` (RMS gradient of each weight tensor over depth and
        time) and ``classes`` (share and recall of each class), as far as they were recorded.
    """
    figures = {"loss": _losses(record), "gradients": _gradients(record), "classes": _classes(record)}
    return {name: figure for name, figure in figures.items() if figure is not None}


def thin(steps: Array, values: Array, points: int = POINTS) -> Line:
    """At most `points` points of a line: medians of equal windows, at the step in the middle of each.

    Medians keep the course of a noisy line, which means would blur by single outliers and plain striding by luck.
    Values that are not finite are left out.
    """
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite].astype(float)
    cuts = np.linspace(0, len(values), min(points, len(values)) + 1).astype(int)
    return tuple(
        (int(steps[(a + b - 1) // 2]), float(np.median(values[a:b]))) for a, b in zip(cuts, cuts[1:], strict=False)
    )


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
    return Curve(title="Loss", y_label="loss", lines=lines, marks=dict(sorted(marks.items())), log_y=wide)


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
    tables = [
        (s, optimizers[k]["parameters"])
        for k in record.keys("grad_norm")
        if k in optimizers and (s := record.series("grad_norm", k))
    ]
    seen = sorted({int(step) for series, _ in tables for step in series.history()[0]})
    if not seen:
        return None
    edges = np.array(seen)[np.linspace(0, len(seen) - 1, min(COLUMNS, len(seen))).astype(int)]
    rows: list[tuple[int, int, Array]] = []
    for series, columns in tables:
        depth = [(i, p) for i, p in enumerate(columns) if known[p]["kind"] in DEPTH_KINDS and known[p]["numel"]]
        cells = _cells(series, edges, [i for i, _ in depth])
        rows += [(known[p]["order"], p, cells[:, j] / np.sqrt(known[p]["numel"])) for j, (_, p) in enumerate(depth)]
    if not rows:
        return None
    rows.sort(key=lambda row: row[:2])
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int)]
    return Heatmap(
        title="Gradient of each weight, first layer on top",
        rows=tuple(known[p]["name"] for _, p, _ in rows),
        columns=tuple(int(e) for e in edges),
        values=tuple(tuple(float(v) for v in values) for _, _, values in rows),
        value_label="RMS gradient",
    )


def _cells(series: Series, edges: Array, columns: list[int]) -> Array:
    """Median gradient norm of some rows between an edge and the next; NaN where there is none that is finite."""
    steps, values = series.history()
    starts = np.searchsorted(steps, edges)
    ends = np.append(starts[1:], len(steps))
    cells = np.full((len(edges), len(columns)), np.nan)
    for i, (a, b) in enumerate(zip(starts, ends, strict=True)):
        if b > a:
            some = values[np.linspace(a, b - 1, min(SAMPLES, b - a)).astype(int)][:, columns]
            ordered = np.sort(np.where(np.isfinite(some), some, np.nan), axis=0)  # NaN last
            middle = (np.isfinite(ordered).sum(0) - 1) // 2
            cells[i] = np.take_along_axis(ordered, np.maximum(middle, 0)[None], 0)[0]
    return cells


def _classes(record: RunRecord) -> Bars | None:
    groups: dict[str, Array] = {}
    for key in record.keys("train_classes")[:1]:
        counts = _history(record, "train_classes", key)[1].sum(0)[:-1]
        groups["share of training samples"] = counts / max(counts.sum(), 1)
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
    padded = {
        n: tuple(float(v) for v in np.pad(g, (0, width - len(g)), constant_values=np.nan)) for n, g in groups.items()
    }
    return Bars(title="Classes", labels=labels, groups=padded)


def _history(record: RunRecord, quantity: str, key: str) -> tuple[Array, Array]:
    series = record.series(quantity, key)
    assert series is not None, f"{key!r} was listed under {quantity!r}"
    return series.history()
