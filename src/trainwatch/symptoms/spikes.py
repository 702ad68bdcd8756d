"""Single losses far above those before and after, and what they brought of all gradients."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array
from trainwatch.symptoms.gradients import gradients_of
from trainwatch.symptoms.losses import loss_course

NEIGHBOURS = 25  # losses about which a spike stands out, an odd number
APART = 3  # steps: closer spikes are one
BRIEF = 5  # steps after which a spike is over; what lasts longer is a new level
LARGE = 0.99  # quantile of the other norms: once a run fits, the median of them is next to nothing
LOWER_HALF = 0.6745  # standard deviations between the lower quartile and the median of a normal distribution
COUNT = 2  # fewer spikes happen to every run
HEIGHT = 0.5  # of the loss of a constant guess
FAR = 30.0  # times the median size of an input: features of one scale, samples of one kind differ by less
DEVIATIONS = 10.0  # above the losses about it
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
        gradient: Largest norm of a spike's gradient over the largest of the others, 1 % left out; None where it is
            not known.
        usual: Nine in ten of the other norms are below it; None where it is not known.
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
    usual: float | None

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
    if course is None or series is None or not course.span:
        return None
    finite = np.isfinite(series.values)
    steps, values = series.steps[finite], series.values[finite].astype(float)
    if len(values) < 2 * NEIGHBOURS:
        return None
    reference = _reference(record, course.stream, course.span)
    least = height * reference
    near = np.flatnonzero(values > np.median(values) + least / 2)
    near = np.sort(near[np.argsort(values[near])[-MOST:]])
    padded = np.pad(values, NEIGHBOURS // 2, mode="reflect")
    around = np.lib.stride_tricks.sliding_window_view(padded, NEIGHBOURS)[near]
    low, level = np.quantile(around, [0.25, 0.5], axis=1)
    noise = (level - low) / LOWER_HALF  # of the lower half: many spikes do not hide one another
    rise = values[near] - level
    runs = _runs(near, np.flatnonzero(rise > np.maximum(least, deviations * noise)))
    tops = np.array([run[rise[run].argmax()] for run in runs], int)
    high = steps[near[np.concatenate([*runs, np.zeros(0, int)])]]
    return Spikes(course.stream, steps[near[tops]], rise[tops], level[tops], reference, len(values),
                  *_gradients(record, high))  # fmt: skip


@dataclass(frozen=True)
class Broken:
    """Training samples whose inputs dwarf those of all others.

    Attributes:
        samples: Held samples that were looked at; `far` of them are so.
        median: Root mean square of the entries of the median sample.
        largest: The largest size over that.
        places: Step and row of the first ones.
        step: Optimiser steps taken before.
    """

    samples: int
    far: int
    median: float
    largest: float
    places: tuple[tuple[int, int], ...]
    step: int

    @property
    def share(self) -> float:
        """Of the samples, those that are so."""
        return self.far / self.samples


def broken_samples(record: RunRecord) -> Broken | None:
    """Those among the held training samples, for `RunRecord.memo`; None where none is known."""
    row = record.latest("row_sizes", "train")
    if row is None or not row[1][3] >= 1:
        return None
    samples, median, largest, far, *places = row[1].tolist()
    pairs = [(int(a), int(b)) for a, b in zip(places[::2], places[1::2], strict=True) if a == a]
    return Broken(round(samples), round(far), median, largest, tuple(pairs), row[0])


def broken_spikes(record: RunRecord) -> Spikes | None:
    """Spikes of the loss, seen less far above the noise, where some samples are broken; for `RunRecord.memo`."""
    spikes = spikes_of(record, HEIGHT, DEVIATIONS / 2) if record.memo(broken_samples) is not None else None
    return spikes if spikes is not None and len(spikes) >= COUNT else None


def _reference(record: RunRecord, stream: str, chance: float) -> float:
    """The loss of chance, but of classes at least that of two equal ones: rare classes make it next to nothing."""
    function = str(record.facts.get("loss", {}).get(stream, {}).get("function"))
    return max(chance, float(np.log(2))) if "cross_entropy" in function else chance


def _runs(places: Array, high: Array) -> list[Array]:
    """Indices into `places`, those of one spike together; what lasts is none, nor is a run that begins high."""
    if not len(high):
        return []
    together = np.split(high, np.flatnonzero(np.diff(places[high]) >= APART) + 1)
    return [run for run in together if places[run[-1]] - places[run[0]] < BRIEF and places[run[0]] > 0]


def _gradients(record: RunRecord, steps: Array) -> tuple[float | None, float | None, float | None]:
    gradients = record.memo(gradients_of)
    series = record.series("grad_norm", gradients.key) if gradients is not None else None
    if gradients is None or series is None or not len(steps):
        return None, None, None
    others = gradients.total[np.isfinite(gradients.total) & ~np.isin(gradients.steps, steps)]
    at = np.flatnonzero(np.isin(series.steps, steps))
    squares = np.nansum(series.values[at].astype(float) ** 2, axis=1)
    squares = squares[np.isfinite(squares)]
    if not len(others) or not others.any() or not len(squares):
        return None, None, None
    rest = float((others**2).mean()) * (len(series.steps) - len(squares))
    ratio = float(np.sqrt(squares.max()) / max(np.quantile(others, LARGE), 1e-30))
    return ratio, float(squares.sum() / (squares.sum() + rest)), float(np.quantile(others, 0.9))
