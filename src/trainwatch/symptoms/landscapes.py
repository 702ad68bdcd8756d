"""The charts of curvature and of the loss around the model's place, drawn from a record alone."""

from __future__ import annotations

from trainwatch.figures import Figure, Intervals, Plane, Profile
from trainwatch.record import RunRecord
from trainwatch.record.series import Array
from trainwatch.symptoms.curvature import Curvature, Escape, curvature

BEYOND = 1  # lengths that are drawn beyond the one that is proposed: each is twice the last, and the loss shoots up
DIRECTION = "length along the direction of negative curvature"


def landscapes_of(record: RunRecord) -> dict[str, Figure]:
    """Chart data of what the saddle probe found last; nothing where it did not run.

    Returns:
        ``spectrum`` (the ends of the spectrum of the Hessian) and, where other batches were curved downwards, too,
        ``saddle`` (the loss along that direction) and ``loss_plane`` (the loss around).
    """
    found = record.memo(curvature)
    if found is None:
        return {}
    figures: dict[str, Figure] = {"spectrum": _spectrum(found)}
    if found.escape is not None:
        figures["saddle"] = _saddle(found.escape, found.step)
    measured = record.latest("loss_plane", "held")
    if measured is not None and measured[0] == found.step:
        figures["loss_plane"] = _plane(measured[1], found.step)
    return figures


def _spectrum(found: Curvature) -> Intervals:
    values = (found.largest, found.smallest, found.along)
    names = (
        "largest eigenvalue (batches A)",
        f"{'most negative' if found.smallest < 0 else 'smallest'} curvature found (A)",
        "in that direction on others (B)",
    )
    return Intervals(
        title=f"Curvature at step {found.step}",
        labels=tuple(f"{name}: {value:.3g}" for name, value in zip(names, values, strict=True)),
        values=values,
        errors=(found.largest_bound, found.smallest_bound, found.along_error),
        value_label="curvature of the loss",
    )


def _saddle(escape: Escape, step: int) -> Profile:
    shown = slice(0, max(escape.best, 1) + 1 + BEYOND)
    lengths = escape.lengths[shown]
    lines = {
        "downhill (B)": (escape.losses, escape.errors),
        "mean of both sides (B)": (escape.losses[0] + escape.even, escape.even_errors),
    }
    marks = {0.0: "here"} | ({escape.length: f"proposed: {escape.length:.3g}"} if escape.best else {})
    return Profile(
        title=f"Loss along the direction of negative curvature, step {step}",
        x_label=DIRECTION,
        y_label="loss of other batches (B)",
        lines={
            name: tuple(zip(lengths.tolist(), values[shown].tolist(), errors[shown].tolist(), strict=True))
            for name, (values, errors) in lines.items()
        },
        marks=marks,
    )


def _plane(table: Array, step: int) -> Plane:
    return Plane(
        title=f"Loss around the model at step {step}",
        x_label=DIRECTION,
        y_label="along the largest eigenvalue's vector",
        value_label="loss (batches A)",
        x=tuple(table[0, 1:].tolist()),
        y=tuple(table[1:, 0].tolist()),
        values=tuple(tuple(row) for row in table[1:, 1:].tolist()),
    )
