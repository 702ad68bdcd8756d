"""Figures as small pictures: as SVG for the page (same data, same bytes; the page's colours apply), or as PNG."""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trainwatch.figures import Bars, Curve, Figure, Heatmap, Histogram, Intervals, Plane, Profile
from trainwatch.reports import wording

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

INK = "#010203"  # drawn for the page's own text colour, which differs between light and dark
# Okabe and Ito's colours, told apart by colour-blind eyes, as far as they show on white and on black; then dashes.
COLOURS = ("#0f86d0", "#e08a00", "#009e73", "#cc79a7", "#d55e00")
DASHES = ("-", "--", "-.", ":")
POINTS = 400  # per line; more are not to be seen
NAME = 24  # characters of a label
MOST_BARS = 40
MOST_ROWS = 60  # with a name, in a heatmap
ACROSS = 4  # panels of histograms side by side
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a "$" in a class name is a dollar
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "font.size": 9,
}


def svg(figure: Figure, salt: str) -> str:
    """A figure as an ``<svg>`` element for use inside a page.

    Args:
        figure: What to draw.
        salt: Makes the identifiers in this picture differ from those in others on the page.
    """
    with _drawn(figure, salt) as (canvas, buffer):
        canvas.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue().decode()
    text = re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg") :])  # these would repeat from picture to picture
    return text.replace(INK, "currentColor").strip()


def png(figure: Figure) -> bytes:
    """A figure as a picture on white, for viewers that show no page."""
    with _drawn(figure) as (canvas, buffer):
        canvas.savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()


@contextlib.contextmanager
def _drawn(figure: Figure, salt: str = "") -> Iterator[tuple[Canvas, io.BytesIO]]:
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")  # a glyph that matplotlib's font lacks is drawn by the browser's
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": salt})
        canvas = Canvas(figsize=(6.4, 2.8), layout="constrained")
        _draw(canvas, figure)
        yield canvas, io.BytesIO()


def _draw(canvas: Canvas, figure: Figure) -> None:
    match figure:
        case Curve():
            _curve(canvas, figure)
        case Heatmap():
            _heatmap(canvas, figure)
        case Bars():
            _bars(canvas, figure)
        case Intervals():
            _intervals(canvas, figure)
        case Profile():
            _profile(canvas, figure)
        case Plane():
            _plane(canvas, figure)
        case Histogram():
            _histogram(canvas, figure)


def _curve(canvas: Canvas, figure: Curve) -> None:
    from matplotlib.ticker import LogFormatter, MaxNLocator

    axes, drawn = canvas.subplots(), 0
    for name, points in figure.lines.items():
        shown = [(s, v) for s, v in points if math.isfinite(v) and (v > 0 or not figure.log_y)]
        if not shown:
            continue
        steps, values = zip(*_thinned(shown), strict=True)
        colour, dash = COLOURS[drawn % len(COLOURS)], DASHES[drawn // len(COLOURS) % len(DASHES)]
        # A leading blank: matplotlib hides labels that begin with an underscore.
        axes.plot(steps, values, dash, color=colour, linewidth=1.4, label=f" {wording.short(name, NAME)}")
        _shade(axes, figure, name, colour)
        if len(shown) < 30:
            axes.plot(steps, values, ".", color=colour, markersize=5)
        drawn += 1
    if not drawn:
        _nothing(canvas)
        return
    if figure.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())  # the default one writes formulas
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.4)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    middle = sum(axes.get_xlim()) / 2
    for rank, (step, label) in enumerate(sorted(figure.marks.items())):
        axes.axvline(step, color=INK, linewidth=0.8, linestyle=":")
        place = (step, 1 + 0.06 * (rank % 3))  # three storeys, since labels are wider than the gaps between marks
        side = "left" if step < middle else "right"
        axes.text(*place, wording.short(label, 40), fontsize=7, ha=side, transform=axes.get_xaxis_transform())
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(wording.short(figure.y_label, 40))
    if drawn > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)


def _shade(axes: Any, figure: Curve, name: str, colour: str) -> None:
    band = [(s, low, high) for s, low, high in figure.bands.get(name, ()) if math.isfinite(low) and math.isfinite(high)]
    if band:
        steps, low, high = zip(*band, strict=True)
        if figure.log_y:  # what reaches below zero would reach to the lower edge
            floor = min(v for points in figure.lines.values() for _, v in points if v > 0)
            low = tuple(max(v, floor) for v in low)
        axes.fill_between(steps, low, high, color=colour, alpha=0.25, linewidth=0)


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Least and greatest of each stretch: spikes stay."""
    if len(points) <= POINTS:
        return list(points)
    stretch = math.ceil(2 * len(points) / POINTS)
    kept = set()
    for start in range(0, len(points), stretch):
        inside = range(start, min(start + stretch, len(points)))
        kept |= {min(inside, key=lambda i: points[i][1]), max(inside, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def _heatmap(canvas: Canvas, figure: Heatmap) -> None:
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import LogFormatter

    axes = canvas.subplots()
    values = np.array(figure.values, np.float64).reshape(len(figure.rows), len(figure.columns))
    infinite = np.isinf(values)
    shown = np.ma.masked_where(~np.isfinite(values) | (figure.log & (values <= 0)), values)
    if not shown.count():
        _nothing(canvas)
        return
    canvas.set_figheight(1.2 + 0.17 * min(len(figure.rows), MOST_ROWS))
    norm = (LogNorm if figure.log else Normalize)(shown.min(), shown.max())
    image = axes.imshow(shown, "cividis", norm, aspect="auto", interpolation="none")
    for row, column in np.argwhere(infinite):
        axes.plot(column, row, "x", color=COLOURS[-1], markersize=4)
    ticks = np.unique(np.linspace(0, len(figure.columns) - 1, 6).round().astype(int))
    axes.set_xticks(ticks, [f"{figure.columns[i]:,}" for i in ticks])
    named = range(0, len(figure.rows), math.ceil(len(figure.rows) / MOST_ROWS))
    axes.set_yticks(named, [wording.short(figure.rows[i], NAME) for i in named], fontsize=7)
    axes.set_xlabel("optimiser step (x: not finite)" if infinite.any() else "optimiser step")
    scale = LogFormatter() if figure.log else None
    bar: Any = canvas.colorbar(image, label=wording.short(figure.value_label, 40), format=scale)
    bar.minorticks_off()  # their labels are formulas
    bar.solids.set_rasterized(True)


def _bars(canvas: Canvas, figure: Bars) -> None:
    """One panel a group, since groups differ in unit, over the same labels."""
    labels = figure.labels[:MOST_BARS]
    groups = {name: values[:MOST_BARS] for name, values in figure.groups.items()}
    if not labels or not groups:
        _nothing(canvas)
        return
    canvas.set_figheight(1.0 + 0.2 * len(labels))
    panels = canvas.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for rank, (axes, (name, values)) in enumerate(zip(panels, groups.items(), strict=True)):
        lengths = [v if math.isfinite(v) else 0.0 for v in values]
        axes.barh(range(len(labels)), lengths, color=COLOURS[rank % len(COLOURS)], height=0.7)
        axes.set_title(wording.short(name, NAME), fontsize=9)
    panels[0].set_yticks(range(len(labels)), [wording.short(label, NAME) for label in labels], fontsize=7)
    panels[0].invert_yaxis()
    if (left_out := len(figure.labels) - len(labels)) > 0:
        panels[0].set_xlabel(f"{left_out:,} more are not drawn", fontsize=7)


def _intervals(canvas: Canvas, figure: Intervals) -> None:
    shown = [
        (label, value, error if math.isfinite(error) else 0.0)
        for label, value, error in zip(figure.labels, figure.values, figure.errors, strict=True)
        if math.isfinite(value)
    ]
    if not shown:
        _nothing(canvas)
        return
    canvas.set_figheight(0.8 + 0.3 * len(shown))
    labels, values, errors = zip(*shown, strict=True)
    axes, places = canvas.subplots(), range(len(shown))
    axes.errorbar(values, places, xerr=errors, fmt="o", color=COLOURS[0], markersize=4, capsize=3)
    axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
    axes.set_yticks(places, [wording.short(label, 2 * NAME) for label in labels], fontsize=8)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(wording.short(figure.value_label, 40))


def _profile(canvas: Canvas, figure: Profile) -> None:
    axes, drawn = canvas.subplots(), 0
    for name, points in figure.lines.items():
        shown = [(x, v, e if math.isfinite(e) else 0.0) for x, v, e in points if math.isfinite(x) and math.isfinite(v)]
        if not shown:
            continue
        places, values, errors = zip(*shown, strict=True)
        colour, dash = COLOURS[drawn % len(COLOURS)], DASHES[drawn % len(DASHES)]  # lines may coincide
        label = f" {wording.short(name, NAME)}"
        size = 14 if len(shown) == 1 else None  # a point alone is what the line is looked at for
        style: dict[str, Any] = {"color": colour, "linewidth": 1.4, "capsize": 2, "markersize": size}
        axes.errorbar(places, values, yerr=errors, fmt=f".{dash}", label=label, **style)
        drawn += 1
    if not drawn:
        _nothing(canvas)
        return
    for x, label in figure.marks.items():
        axes.axvline(x, color=INK, linewidth=0.8, linestyle=":")
        axes.text(x, 1.0, wording.short(label, 40), fontsize=7, ha="center", transform=axes.get_xaxis_transform())
    axes.set_xlabel(wording.short(figure.x_label, 60))
    axes.set_ylabel(wording.short(figure.y_label, 40))
    if drawn > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)


def _plane(canvas: Canvas, figure: Plane) -> None:
    import numpy as np

    values = np.array(figure.values, np.float64).reshape(len(figure.y), len(figure.x))
    shown = np.ma.masked_invalid(values)
    if min(values.shape) < 2 or not shown.count():
        _nothing(canvas)
        return
    canvas.set_figheight(3.6)
    axes = canvas.subplots()
    if shown.min() < shown.max():
        image = axes.contourf(figure.x, figure.y, shown, levels=16, cmap="cividis")
        bar: Any = canvas.colorbar(image, label=wording.short(figure.value_label, 40))
        bar.minorticks_off()
    axes.plot(0, 0, "o", color=COLOURS[-1], markersize=5)
    axes.set_xlabel(wording.short(figure.x_label, 60))
    axes.set_ylabel(wording.short(figure.y_label, 60))


def _histogram(canvas: Canvas, figure: Histogram) -> None:
    names = [
        name
        for name, edges in figure.edges.items()
        if len(edges) > 1 and any(math.isfinite(v) for shares in figure.shares.get(name, {}).values() for v in shares)
    ]
    if not names:
        _nothing(canvas)
        return
    columns = min(len(names), ACROSS)
    rows = math.ceil(len(names) / columns)
    canvas.set_figheight(1.7 * rows + 0.3)
    panels = canvas.subplots(rows, columns, squeeze=False).ravel()
    drawn: dict[str, Any] = {}
    for axes, name in zip(panels, names, strict=False):
        for rank, (group, shares) in enumerate(figure.shares[name].items()):
            heights = [v if math.isfinite(v) else 0.0 for v in shares]
            # The first filled, the others as outlines before it.
            style: dict[str, Any] = {"fill": not rank, "color": COLOURS[rank % len(COLOURS)], "linewidth": 1.4}
            drawn[group] = axes.stairs(heights, figure.edges[name], alpha=1 if rank else 0.7, **style)
        axes.set_title(wording.short(name, NAME), fontsize=8)
        axes.set_xlabel(wording.short(figure.notes.get(name, ""), 2 * NAME), fontsize=7)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(labelsize=7)
        axes.set_yticks([])
        axes.set_ylim(bottom=0)
        axes.spines["left"].set_visible(False)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    if len(drawn) > 1:
        labels = [f" {wording.short(group, NAME)}" for group in drawn]
        canvas.legend(list(drawn.values()), labels, loc="outside upper right", ncols=len(drawn), fontsize=8)


def _nothing(canvas: Canvas) -> None:
    canvas.clear()
    canvas.set_figheight(0.5)
    canvas.text(0.02, 0.5, "no finite value to draw")
