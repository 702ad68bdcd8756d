"""Single losses far above those before and after, and what they brought of all gradients."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array
from trainwatch.symptoms.gradients import gradients_of
from trainwatch.symptoms.losses import MAD_TO_SD, loss_course

NEIGHBOURS = 25  # losses about which a spike stands out, an odd number
APART = 3  # steps: closer spikes are one
BRIEF = 5  # steps after which a spike is over; what lasts longer is a new level
MOST = 512  # losses that are looked at closely: a look must stay cheap


@dataclass(frozen=True)
class Spikes:
    """The spikes of a training loss, where it is held at full resolution.

    Attributes:
        stream: Stream of ``train_loss`` that they were found in.
        steps: Their steps, shape (n,).
        heights: Their heights above the losses about them, shape (n,).
        levels: Medians of the losses about them, shape (n,).
        reference: The loss of a constant guess, else the first: the unit of a height.
        rows: Steps that were looked at.
        gradient: Norm of the gradient at the highest spike over the typical norm; None where it is not known.
        energy: Share of the run's sum of squared gradient norms that the spikes brought; None where it is not known.
    """

    stream: str
    steps: Array = field(repr=False)
    heights: Array = field(repr=False)
    levels: Array = field(repr=False)
    reference: float
    rows: int
    gradient: float | None
    energy: float | None

    def __len__(self) -> int:
        return len(self.steps)


def spikes_of(record: RunRecord, height: float, deviations: float) -> Spikes | None:
    """Spikes of the loss that is trained on; None where no loss was recorded, or too few.

    Args:
        record: The run.
        height: A spike rises above the losses about it by this share of the loss of a constant guess.
        deviations: And by so many of their standard deviations.
    """
    course = record.memo(loss_course)
    series = record.series("train_loss", course.stream) if course is not None else None
    if course is None or series is None or not course.reference:
        return None
    finite = np.isfinite(series.values)
    steps, values = series.steps[finite], series.values[finite].astype(float)
    if len(values) < 2 * NEIGHBOURS:
        return None
    least = height * abs(course.reference)
    near = np.flatnonzero(values > np.median(values) + least / 2)
    near = np.sort(near[np.argsort(values[near])[-MOST:]])
    padded = np.pad(values, NEIGHBOURS // 2, mode="reflect")
    around = np.lib.stride_tricks.sliding_window_view(padded, NEIGHBOURS)[near]
    level = np.median(around, axis=1)
    noise = MAD_TO_SD * np.median(np.abs(around - level[:, None]), axis=1)
    rise = values[near] - level
    runs = _runs(near, np.flatnonzero(rise > np.maximum(least, deviations * noise)))
    tops = np.array([run[rise[run].argmax()] for run in runs], int)
    high = steps[near[np.concatenate([*runs, np.zeros(0, int)])]]
    highest = int(steps[near[tops[rise[tops].argmax()]]]) if len(tops) else -1
    gradient, energy = _gradients(record, high, highest)
    return Spikes(course.stream, steps[near[tops]], rise[tops], level[tops], abs(course.reference), len(values),
                  gradient, energy)  # fmt: skip


def _runs(places: Array, high: Array) -> list[Array]:
    """Indices into `places`, those of one spike together; what lasts is none, nor is a run that begins high."""
    if not len(high):
        return []
    together = np.split(high, np.flatnonzero(np.diff(places[high]) >= APART) + 1)
    return [run for run in together if places[run[-1]] - places[run[0]] < BRIEF and places[run[0]] > 0]


def _gradients(record: RunRecord, steps: Array, highest: int) -> tuple[float | None, float | None]:
    gradients = record.memo(gradients_of)
    series = record.series("grad_norm", gradients.key) if gradients is not None else None
    if gradients is None or series is None or not len(steps):
        return None, None
    usual = gradients.total[np.isfinite(gradients.total) & ~np.isin(gradients.steps, steps)]
    at = np.flatnonzero(np.isin(series.steps, steps))
    squares = np.nansum(series.values[at].astype(float) ** 2, axis=1)
    at, squares = at[np.isfinite(squares)], squares[np.isfinite(squares)]
    if not len(usual) or not usual.any() or not len(at):
        return None, None
    peak = squares[series.steps[at] == highest]
    rest = float((usual**2).mean()) * (len(series.steps) - len(at))
    ratio = float(np.sqrt(peak[0]) / max(np.median(usual), 1e-30)) if len(peak) else None
    return ratio, float(squares.sum() / (squares.sum() + rest))
