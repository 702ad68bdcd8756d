"""Charts as data. A renderer draws them; a report read back from JSON looks the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args


@dataclass(frozen=True)
class Curve:
    """Lines over optimiser steps.

    Attributes:
        title: Headline.
        y_label: Quantity and unit of the vertical axis.
        lines: Name -> points ``(step, value)``.
        marks: Step -> what happened there.
        log_y: Draw the vertical axis on a log scale.
        bands: Name of a line -> ``(step, low, high)``, which is shaded behind it.
    """

    kind: ClassVar[str] = "curve"
    title: str
    y_label: str
    lines: dict[str, tuple[tuple[int, float], ...]]
    marks: dict[int, str]
    log_y: bool = False
    bands: dict[str, tuple[tuple[int, float, float], ...]] = field(default_factory=dict)


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


@dataclass(frozen=True)
class Intervals:
    """Values with what they are uncertain by, one below the other.

    Attributes:
        title: Headline.
        labels: One name a value.
        values, errors: As many of each.
        value_label: Quantity and unit.
    """

    kind: ClassVar[str] = "intervals"
    title: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    errors: tuple[float, ...]
    value_label: str


@dataclass(frozen=True)
class Profile:
    """Lines with error bars over something else than steps.

    Attributes:
        title: Headline.
        x_label, y_label: Quantities and units of the axes.
        lines: Name -> points ``(x, value, error)``.
        marks: x -> what is there.
    """

    kind: ClassVar[str] = "profile"
    title: str
    x_label: str
    y_label: str
    lines: dict[str, tuple[tuple[float, float, float], ...]]
    marks: dict[float, str]


@dataclass(frozen=True)
class Plane:
    """A value over a plane, with the present place at its origin.

    Attributes:
        title: Headline.
        x_label, y_label, value_label: Quantities and units.
        x, y: Places along the axes.
        values: One tuple per place of `y`, as long as `x`.
    """

    kind: ClassVar[str] = "plane"
    title: str
    x_label: str
    y_label: str
    value_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Histogram:
    """How the values of several quantities are spread, a panel each.

    Attributes:
        title: Headline.
        edges: Quantity -> edges of its bins, rising.
        shares: Quantity -> group, such as ``train`` -> share of the group's values in each bin.
        notes: Quantity -> what is not in the bins.
    """

    kind: ClassVar[str] = "histogram"
    title: str
    edges: dict[str, tuple[float, ...]]
    shares: dict[str, dict[str, tuple[float, ...]]]
    notes: dict[str, str]


@dataclass(frozen=True)
class Gallery:
    """Small pictures with captions, in groups such as classes.

    Attributes:
        title: Headline.
        groups: Name -> pictures, each a PNG in base64 and its caption.
    """

    kind: ClassVar[str] = "gallery"
    title: str
    groups: dict[str, tuple[tuple[str, str], ...]]


Figure = Curve | Heatmap | Bars | Intervals | Profile | Plane | Histogram | Gallery


def figure_from_plain(data: dict[str, Any]) -> Figure:
    """The inverse of `trainwatch.diagnosis.to_plain` plus its ``kind`` key.

    Raises:
        ValueError: The kind is none of those known here.
    """
    fields = {k: v for k, v in data.items() if k != "kind"}
    if data["kind"] == "curve":
        lines = {name: tuple((int(s), _float(v)) for s, v in points) for name, points in fields["lines"].items()}
        marks = {int(k): v for k, v in fields["marks"].items()}
        shaded = fields.get("bands", {})  # older reports have none
        bands = {n: tuple((int(s), _float(low), _float(high)) for s, low, high in b) for n, b in shaded.items()}
        return Curve(**{**fields, "lines": lines, "marks": marks, "bands": bands})
    if data["kind"] == "heatmap":
        values = tuple(tuple(_float(v) for v in row) for row in fields["values"])
        return Heatmap(
            **{**fields, "rows": tuple(fields["rows"]), "columns": tuple(fields["columns"]), "values": values}
        )
    if data["kind"] == "bars":
        groups = {name: tuple(_float(v) for v in values) for name, values in fields["groups"].items()}
        return Bars(**{**fields, "labels": tuple(fields["labels"]), "groups": groups})
    if data["kind"] == "intervals":
        numbers = {name: tuple(_float(v) for v in fields[name]) for name in ("values", "errors")}
        return Intervals(**{**fields, **numbers, "labels": tuple(fields["labels"])})
    if data["kind"] == "profile":
        points = {n: tuple((_float(x), _float(v), _float(e)) for x, v, e in p) for n, p in fields["lines"].items()}
        return Profile(**{**fields, "lines": points, "marks": {float(k): v for k, v in fields["marks"].items()}})
    if data["kind"] == "plane":
        axes = {name: tuple(_float(v) for v in fields[name]) for name in ("x", "y")}
        return Plane(**{**fields, **axes, "values": tuple(tuple(_float(v) for v in row) for row in fields["values"])})
    if data["kind"] == "histogram":
        edges = {name: tuple(_float(v) for v in values) for name, values in fields["edges"].items()}
        shares = {
            name: {group: tuple(_float(v) for v in values) for group, values in groups.items()}
            for name, groups in fields["shares"].items()
        }
        return Histogram(**{**fields, "edges": edges, "shares": shares})
    if data["kind"] == "gallery":
        tiles = {name: tuple((str(png), str(said)) for png, said in group) for name, group in fields["groups"].items()}
        return Gallery(**{**fields, "groups": tiles})
    known = ", ".join(kind.kind for kind in get_args(Figure))
    raise ValueError(f"unknown figure kind {data['kind']!r}; known are {known}")


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)
