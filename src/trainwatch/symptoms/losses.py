"""The course of the training loss: where it began, where it got to, how noisy it is, and what chance would give."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array, Series
from trainwatch.symptoms.guess import chance_of, floor_of

BLOCKS = 20  # medians of this many equal parts of the run
POINTS = 512  # rows looked at in a run whose past is folded
TAIL = 0.2  # share of the run that counts as its end
MAD_TO_SD = 1.4826  # of a normal distribution
MEDIAN_ERROR = 1.2533  # standard error of a median against that of a mean


@dataclass(frozen=True)
class LossCourse:
    """What the training loss did, in its own unit.

    Attributes:
        stream: Stream of ``train_loss`` that it was read from.
        steps: Optimiser steps.
        values: Losses at those steps; infinity where not finite.
        start: The first loss: before any update. Of a long run, the highest of the first ones.
        settled: Median between 5 % and 15 % of the run, when an output bias has found the mean of the targets.
        best: Lowest median of a twentieth of the run.
        best_step: Where that twentieth begins.
        end: Median of the last fifth of the run; infinite where most of it is not finite.
        noise: Standard deviation of one loss about the course, from differences of neighbours.
        end_error: Standard error of `end`.
        chance: Loss of a constant guess, where the criterion and the classes tell; else None.
        floor: Loss of a perfect net: above 0 where labels are smoothed, often below where it is a likelihood.
    """

    stream: str
    steps: Array = field(repr=False)
    values: Array = field(repr=False)
    start: float
    settled: float
    best: float
    best_step: int
    end: float
    noise: float
    end_error: float
    chance: float | None
    floor: float = 0.0

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def reference(self) -> float:
        """What a run that learns must get below: the loss of chance, else the first loss."""
        return self.start if self.chance is None else self.chance

    @property
    def span(self) -> float:
        """What there is to learn: from `reference` down to `floor`, as a positive number. The unit of every share."""
        return abs(self.reference - self.floor)

    @property
    def gained(self) -> float:
        """Share of `span` that training has removed. Minus infinity where the end is not finite."""
        return _share(self.reference - self.end, self.span)

    @property
    def learned(self) -> float:
        """As `gained`, but a fall within the first tenth of the run does not count unless most of the loss went.

        Where chance is not known, an untrained net may start above it, and an output bias alone gets it down there.
        """
        if self.chance is not None or not np.isfinite(self.end):
            return self.gained
        return max(_share(self.settled - self.end, abs(self.settled)), self.gained if self.gained > 0.5 else -np.inf)

    @property
    def gained_error(self) -> float:
        """Standard error of `gained`."""
        return max(_share(self.end_error, self.span), 1e-9)

    @property
    def relapsed(self) -> float:
        """Share of the best gain that was lost again by the end; 0 where there never was one."""
        gain = self.reference - self.best
        return (self.end - self.best) / gain if gain > 3 * self.noise else 0.0

    def harm(self, learned: float, relapse: float) -> tuple[float, bool]:
        """How surely the run is no better for training, and whether it had been.

        Args:
            learned: A run that ends with less of its reference gone than this has not learned.
            relapse: A run that ends having lost more of its best gain than this has lost it.

        Returns:
            Standard errors beyond the nearer threshold, positive where there is harm; True if a gain was lost.
        """
        stuck = (learned - self.gained) / self.gained_error
        lost = (self.relapsed - relapse) * (self.reference - self.best) / max(self.end_error, 1e-30)
        margin, relapsed = max((stuck, False), (lost, True)) if self.relapsed > 0 else (stuck, False)
        return float(np.clip(margin, -1e3, 1e3)), relapsed

    def rise(self, share: float, deviations: float, after: int, level: float) -> int | None:
        """Step of the first loss after a step that is clearly above a level; None where there is none.

        Losses must stand out of the noise, two in a row; where the end itself is above, the noise of a wild run is no
        excuse.

        Args:
            share: How far above, as a share of `span`.
            deviations: And by how many standard deviations.
            after: The step.
            level: The level.
        """
        reach = level + share * self.span
        if self.end <= reach:
            reach = max(reach, level + deviations * self.noise)
        high = (self.steps > after) & (self.values > reach)
        lasting = high & (np.append(high[1:], self.end > reach) | np.append(False, high[:-1]))
        above = np.flatnonzero(lasting)
        return int(self.steps[above[0]]) if len(above) else None

    def reached(self, level: float) -> float:
        """Share of the run after which the loss, in medians of a twentieth, is below a level; 2 for never."""
        below = _block_medians(self.values, min(BLOCKS, len(self))) < level
        return int(below.argmax()) / len(below) if below.any() else 2.0

    @property
    def first(self) -> float | None:
        """The first loss, where a constant guess costs 1 and a perfect net 0; None where neither is known."""
        return (self.start - self.floor) / self.span if self.chance is not None and self.span else None

    def guesses(self, times: float) -> float | None:
        """The loss that is so many times a constant guess; None where none is known."""
        return None if self.chance is None else self.floor + times * self.span

    def bound(self, learned: float) -> float:
        """The loss that a run must end below to have learned that share of its reference."""
        return self.reference - learned * self.span

    @property
    def story(self) -> str:
        """The course in words, for a summary."""
        end = f"{self.end:.3g}" if np.isfinite(self.end) else "not finite"
        chance = f" ({self.chance:.3g} is chance)" if self.chance is not None else ""
        return f"{self.start:.3g} at the start, {self.best:.3g} at best, {end} at the end{chance}"


def loss_course(record: RunRecord) -> LossCourse | None:
    """The course of the loss that is trained on; None where no loss was recorded.

    A single criterion is read as it is, since chance is known for it; a sum of several at its root.
    """
    streams = record.keys("train_loss")
    criteria = [s for s in streams if s != "root"]
    stream = criteria[0] if len(criteria) == 1 or (criteria and "root" not in streams) else "root"
    series = record.series("train_loss", stream)
    if series is None or not len(series):
        return None
    steps, values = series.history()
    values = values.astype(float)
    first = float(series.windows["max"][0]) if len(series.windows["max"]) else values[0]
    kept = ~np.isnan(values)
    if len(series) < len(steps):  # the folded past has fewer rows: take rows at equal distances in time
        even = np.searchsorted(steps, np.linspace(steps[0], steps[-1], POINTS))
        kept &= np.isin(np.arange(len(steps)), even)
    steps, values = steps[kept], values[kept]
    if not len(values):
        return None
    n = len(values)
    finite = values[np.isfinite(values)]
    cuts = np.linspace(0, n, min(BLOCKS, n) + 1).astype(int)[:-1]
    levels = _block_medians(values, min(BLOCKS, n))
    tail = values[min(int(n * (1 - TAIL)), n - 1) :]
    return LossCourse(
        stream=stream,
        steps=steps,
        values=values,
        start=float(first if np.isfinite(first) else values[0]),
        settled=float(np.median(values[int(n * 0.05) : max(int(n * 0.15), 1)])),
        best=float(levels.min()) if np.isfinite(levels.min()) else float(values[0]),
        best_step=int(steps[cuts[int(levels.argmin())]]),
        end=float(np.median(tail)),
        noise=_noise(finite),
        end_error=MEDIAN_ERROR * _noise(tail[np.isfinite(tail)]) / float(np.sqrt(len(tail))),
        chance=chance_of(record, stream),
        floor=floor_of(record, stream),
    )


def penalty_share(record: RunRecord) -> float:
    """Largest share of what is backpropagated that a term beside the only criterion makes up; 0 where none is seen.

    For `RunRecord.memo`. Of the medians of each twentieth of the steps: a term that has pulled all weights to nothing
    is itself nothing in the end.
    """
    terms, totals = _beside_the_criterion(record)
    usable = totals > 0
    shares = terms[usable] / totals[usable]
    return float(max(0.0, *shares)) if usable.any() else 0.0


def penalty_size(record: RunRecord) -> float:
    """That term at its median, over what there is to learn by the criterion; 0 where either is not known.

    For `RunRecord.memo`.
    """
    (terms, _), course = _beside_the_criterion(record), record.memo(loss_course)
    if not len(terms) or course is None or not course.span > 0:
        return 0.0
    return float(np.median(terms)) / course.span


def _beside_the_criterion(record: RunRecord) -> tuple[Array, Array]:
    """What is added to the only criterion, and the sum of both: medians of each twentieth of the steps, or nothing."""
    criteria = [s for s in record.keys("train_loss") if s != "root"]
    series = [record.series(q, s) for q, s in (("train_loss", "root"), *(("train_loss", c) for c in criteria),
                                               *(("loss_factor", c) for c in criteria))]  # fmt: skip
    if len(criteria) != 1 or len(series) != 3 or any(s is None or not len(s) for s in series):
        return np.zeros(0), np.zeros(0)
    whole, part, factor = (s.values for s in series if s is not None)
    n = min(len(whole), len(part))
    totals, parts = (_block_medians(values[-n:], min(BLOCKS, n)) for values in (whole, part))
    known = np.isfinite(totals) & np.isfinite(parts)
    return totals[known] - float(factor[-1]) * parts[known], totals[known]


@dataclass(frozen=True)
class NotFinite:
    """Where a series first held a value that is not finite.

    Attributes:
        step: Optimiser step of that row; of a window of old rows, its first one.
        until: Last step of that window.
        columns: Columns of the row that are not finite; ``(0,)`` for a scalar.
        present: Columns of the row that have a value at all.
        share: Share of the rows from there on that hold such a value.
        trailing: Rows at the end that all hold one.
    """

    step: int
    until: int
    columns: tuple[int, ...]
    present: int
    share: float
    trailing: int


def not_finite(series: Series) -> NotFinite | None:
    """The first value of a series that is not finite; None where all are."""
    if not (np.isinf(series.values).any() or np.isinf(series.windows["max"]).any()):
        return None
    steps, values = series.history()
    table = values.reshape(len(values), -1)
    bad = np.asarray(np.isinf(table).any(axis=1))
    at = int(bad.argmax())
    good = np.flatnonzero(~bad)
    old = at < len(series.windows["first"])
    return NotFinite(
        step=int(series.windows["first"][at] if old else steps[at]),
        until=int(series.windows["last"][at] if old else steps[at]),
        columns=tuple(int(i) for i in np.flatnonzero(np.isinf(table[at]))),
        present=int((~np.isnan(table[at])).sum()),
        share=float(bad[at:].mean()),
        trailing=len(bad) - 1 - int(good[-1]) if len(good) else len(bad),
    )


def _block_medians(values: Array, blocks: int) -> Array:
    width = len(values) // blocks
    usable = values[len(values) - width * blocks :]
    return np.asarray(np.median(usable.reshape(blocks, width), axis=1))


def _noise(values: Array) -> float:
    """Standard deviation of one value about a slow course, from differences of neighbours."""
    return float(np.median(np.abs(np.diff(values)))) * MAD_TO_SD / 2**0.5 if len(values) > 1 else 0.0


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
