"""Charts as data. A renderer draws them; a report read back from JSON looks the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Curve:
    """Lines over optimiser steps.

    Attributes:
        title: Headline.
        y_label: Quantity and unit of the vertical axis.
        lines: Name -> points ``(step, value)``.
        marks: Step -> what happened there.
        log_y: Draw the vertical axis on a log scale.
    """

    kind: ClassVar[str] = "curve"
    title: str
    y_label: str
    lines: dict[str, tuple[tuple[int, float], ...]]
    marks: dict[int, str]
    log_y: bool = False


@dataclass(frozen=True)
class Heatmap:
    """Values over rows (layers, in execution order) and columns (steps).

    Attributes:
        title: Headline.
        rows: Row names, top first.
        columns: Optimiser steps.
        values: One tuple per row, as long as `columns`.
        value_label: Quantity and unit.
        log: Colour on a log scale.
    """

    kind: ClassVar[str] = "heatmap"
    title: str
    rows: tuple[str, ...]
    columns: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]
    value_label: str
    log: bool = True


@dataclass(frozen=True)
class Bars:
    """Named groups of bars, such as samples per class beside recall per class.

    Attributes:
        title: Headline.
        labels: One name a bar.
        groups: Group name -> one value per label.
    """

    kind: ClassVar[str] = "bars"
    title: str
    labels: tuple[str, ...]
    groups: dict[str, tuple[float, ...]]


Figure = Curve | Heatmap | Bars


def figure_from_plain(data: dict[str, Any]) -> Figure:
    """The inverse of `trainwatch.diagnosis.to_plain` plus its ``kind`` key.

    Raises:
        ValueError: The kind is none of those known here.
    """
    fields = {k: v for k, v in data.items() if k != "kind"}
    if data["kind"] == "curve":
        lines = {name: tuple((int(s), _float(v)) for s, v in points) for name, points in fields["lines"].items()}
        return Curve(**{**fields, "lines": lines, "marks": {int(k): v for k, v in fields["marks"].items()}})
    if data["kind"] == "heatmap":
        values = tuple(tuple(_float(v) for v in row) for row in fields["values"])
        return Heatmap(
            **{**fields, "rows": tuple(fields["rows"]), "columns": tuple(fields["columns"]), "values": values}
        )
    if data["kind"] == "bars":
        groups = {name: tuple(_float(v) for v in values) for name, values in fields["groups"].items()}
        return Bars(**{**fields, "labels": tuple(fields["labels"]), "groups": groups})
    raise ValueError(f"unknown figure kind {data['kind']!r}; known are curve, heatmap, bars")


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)
