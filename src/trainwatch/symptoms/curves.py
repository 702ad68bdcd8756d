"""The curves of a run: the validation passes of one stream, and the training loss between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwatch.record import RunRecord
from trainwatch.symptoms.guess import guess_in_validation
from trainwatch.symptoms.losses import loss_course

Array = NDArray[Any]
Line = tuple[tuple[int, float], ...]
POINTS = 200  # most points of a line in a chart
FEWEST = 8  # columns from which a noise can be told
MAX_PASSES = 128  # longer curves are averaged in blocks: a look must stay cheap


@dataclass(frozen=True)
class ValidationCurve:
    """The passes of one validation stream, oldest first.

    Attributes:
        stream: Key of the stream.
        steps: Optimiser step of each pass, shape (T,).
        losses: Loss per pass and group of samples, shape (T, C); one column where only the mean was seen.
        weights: Share of each column, summing to 1, shape (C,).
        accuracy: Share of right predictions per pass, shape (T,), or None.
        paired: Columns stand for the same samples in every pass.
        training: Mean training loss between a pass and the one before, shape (T,); NaN where there is none.
        same_criterion: `training` was made by the criterion of the validation loss.
        start: Loss before learning: the first pass or, by the same criterion, the first training step; the larger.
        chance: What a constant guess costs, by the targets of validation or, by the same criterion, of training; None
            where neither tells.
        floor: What a perfect net would leave.
    """

    stream: str
    steps: Array
    losses: Array
    weights: Array
    accuracy: Array | None
    paired: bool
    training: Array
    same_criterion: bool
    start: float
    chance: float | None = None
    floor: float = 0.0

    @property
    def mean(self) -> Array:
        """Loss of each pass, shape (T,)."""
        return np.asarray(self.losses @ self.weights)

    @property
    def kept(self) -> Array | None:
        """Share that each pass leaves of what lies below a constant guess, shape (T,); None where it is not known."""
        if self.chance is None or self.chance == self.floor:
            return None
        return np.asarray((self.mean - self.floor) / abs(self.chance - self.floor))


def noise_band(curve: ValidationCurve) -> tuple[tuple[int, float, float], ...]:
    """Two standard errors to either side of each pass, ``(step, low, high)``; empty below `FEWEST` columns.

    Where the same samples come back in each pass, their errors are alike and cancel in a comparison: the band is that
    of the difference from the lowest pass, which has none itself.
    """
    mean, columns = curve.mean, curve.losses.shape[1]
    if columns < FEWEST or not np.isfinite(curve.losses).all():
        return ()
    rows = curve.losses - curve.losses[np.argmin(mean)] if curve.paired else curve.losses
    apart = rows - (rows @ curve.weights)[:, None]
    error = np.sqrt((curve.weights**2 * apart**2).sum(1) * columns / (columns - 1))
    return tuple(zip(curve.steps.tolist(), (mean - 2 * error).tolist(), (mean + 2 * error).tolist(), strict=True))


def primary_stream(record: RunRecord) -> str | None:
    """The validation stream that verdicts rest on: the one marked primary, else the first that is validation."""
    facts = record.facts.get("validation", {})
    streams = [k for k in record.keys("val_loss") if facts.get(k, {}).get("kind", "val") == "val"]
    return next((k for k in streams if facts.get(k, {}).get("primary")), streams[0] if streams else None)


def samples_of(record: RunRecord, stream: str | None) -> int:
    """Samples of a validation stream; 0 where that is not known."""
    return int(record.facts.get("validation", {}).get(stream, {}).get("samples") or 0)


def is_one_sample(record: RunRecord, stream: str | None) -> bool:
    """Validation is of a single sample, as in leaving one out, which tells of no other."""
    facts = record.facts.get("validation", {}).get(stream, {})
    return facts.get("criterion") != "model" and samples_of(record, stream) == 1


def passes(record: RunRecord, quantity: str, stream: str) -> tuple[Array, Array]:
    """Steps and rows of a validation quantity; of several passes at one step the last one counts."""
    series = record.series(quantity, stream)
    if series is None or not len(series):
        return np.zeros(0, np.int64), np.zeros((0, 0))
    steps, rows = series.history()
    last = np.append(steps[1:] != steps[:-1], True)
    return steps[last], np.asarray(rows[last], float)


def validation_curve(record: RunRecord) -> ValidationCurve | None:
    """The primary validation stream, for `RunRecord.memo`; None without a finite pass, or with a single sample."""
    stream = primary_stream(record)
    if stream is None or is_one_sample(record, stream):
        return None
    steps, losses = passes(record, "val_sample_loss", stream)
    if not len(steps):
        steps, losses = passes(record, "val_loss", stream)
        losses = losses.reshape(len(steps), 1)
    sizes = passes(record, "val_group_size", stream)[1]
    weights = sizes[-1] if sizes.shape[1:] == losses.shape[1:] else np.ones(losses.shape[1])
    whole = np.isfinite(losses).mean(1) > 0.5  # a partial pass, such as a sanity check, is not comparable
    steps, losses = steps[whole], losses[whole]
    columns = np.isfinite(losses).all(0) & (weights > 0)
    if not len(steps) or not columns.any():
        return None
    losses, weights = losses[:, columns], weights[columns] / weights[columns].sum()
    facts = record.facts.get("validation", {}).get(stream, {})
    criterion = training_stream(record, facts.get("criterion"))
    same = criterion is not None and criterion == facts.get("criterion")
    training = _between(record, criterion, steps)
    chance, floor = guess_in_validation(record, stream)
    course = record.memo(loss_course)
    if chance is None and same and course is not None:
        chance, floor = course.chance, course.floor
    first = [losses[0] @ weights, *([_first(record, criterion)] if same else [])]
    blocks = _blocks(len(steps))
    return ValidationCurve(
        stream=stream,
        steps=steps[blocks - 1],
        losses=_averaged(losses, blocks),
        weights=weights,
        accuracy=_accuracy(record, stream, steps, blocks),
        paired=bool(facts.get("paired", False)) and losses.shape[1] > 1,
        training=_averaged(training, blocks),
        same_criterion=same,
        start=float(np.nanmax(first)),
        chance=chance,
        floor=floor,
    )


def training_stream(record: RunRecord, criterion: str | None = None) -> str | None:
    """The training loss to set beside a validation criterion: the same one, else `root`, else the first seen."""
    seen = record.keys("train_loss")
    return next((k for k in (criterion, "root") if k in seen), seen[0] if seen else None)


def _between(record: RunRecord, stream: str | None, steps: Array) -> Array:
    """Mean training loss in the steps between each validation pass and the one before."""
    series = record.series("train_loss", stream) if stream else None
    if series is None:
        return np.full(len(steps), np.nan)
    at, values = series.history()
    values = np.where(np.isfinite(values), values, np.nan).astype(float)
    ends = np.searchsorted(at, steps)  # step k is measured before update k, a pass at k after k updates
    known = np.append(0, np.cumsum(~np.isnan(values)))
    total = np.append(0, np.nancumsum(values))
    starts = np.append(0, ends[:-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((total[ends] - total[starts]) / (known[ends] - known[starts]))


def _first(record: RunRecord, stream: str | None) -> float:
    series = record.series("train_loss", stream) if stream else None
    value = float(series.history()[1][0]) if series is not None and len(series) else np.nan
    return value if np.isfinite(value) else np.nan


def _accuracy(record: RunRecord, stream: str, steps: Array, blocks: Array) -> Array | None:
    at, rows = passes(record, "val_sample_correct", stream)
    if not len(at) or not np.isin(steps, at).all():
        return None
    rows = rows[np.searchsorted(at, steps)]
    sizes = passes(record, "val_group_size", stream)[1]
    weights = sizes[-1] if sizes.shape[1:] == rows.shape[1:] else np.ones(rows.shape[1])
    known = np.isfinite(rows) * weights
    return None if not known.sum(1).all() else _averaged((np.nan_to_num(rows) * known).sum(1) / known.sum(1), blocks)


def _blocks(length: int) -> Array:
    """Ends of the blocks that thin a curve to at most `MAX_PASSES` points."""
    width = -(-length // MAX_PASSES)
    return np.arange(length, 0, -width)[::-1]


def _averaged(rows: Array, ends: Array) -> Array:
    if len(ends) == len(rows):
        return rows
    starts = np.append(0, ends[:-1])
    return np.asarray(np.add.reduceat(rows, starts, axis=0) / (ends - starts).reshape(-1, *[1] * (rows.ndim - 1)))


def thin(steps: Array, values: Array, points: int = POINTS) -> Line:
    """At most `points` points of a line: medians of equal windows, at the step in the middle of each.

    Medians keep the course of a noisy line, which means would blur by single outliers and plain striding by luck.
    Values that are not finite are left out.
    """
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite].astype(float)
    width = -(-len(values) // points) or 1
    whole = len(values) // width * width
    middles = np.median(values[:whole].reshape(-1, width), axis=1)
    line = list(zip(steps[(width - 1) // 2 : whole : width].tolist(), middles.tolist(), strict=True))
    if whole < len(values):
        line.append((int(steps[(whole + len(values) - 1) // 2]), float(np.median(values[whole:]))))
    return tuple(line)
