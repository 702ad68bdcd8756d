"""Whether a loss was still falling when the run ended: what more of the same training would gain, with its error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import Array, ValidationCurve, validation_curve
from trainwatch.symptoms.losses import loss_course

STRETCH = 1.5  # the run is looked at in stretches of time, each ending 1.5 times as late as it begins
FEWEST = 3  # points of a stretch, or its slope is not known
POINTS = 32  # of a stretch; more are averaged
SURE = 2.0  # standard errors of a bound
STEADY = 1.5  # a rate that changes by more within the last stretch makes the loss fall, or stall, by itself
NEAR = 0.2  # of what a constant guess costs: less than that below it is near
STARTED = 0.1  # share of the loss of a constant guess: less is no fall
RESTS = 0.3  # of what was gained: a loss that would gain less in as many steps again has come to rest
BARELY = 0.02  # of its peak: a rate that is as good as none


@dataclass(frozen=True)
class Trend:
    """How a loss fell in the last stretch of a run (the last third) and in the stretch before it.

    Loss against the logarithm of time is nearly straight over one such stretch, whatever the law of the curve, and
    two of them show how it flattens out.

    Attributes:
        stream: Validation stream, or stream of the training loss where `validation` is False.
        validation: Whether the loss is that of validation.
        last_step: Step at which the run ended.
        end: Loss at the end, on the fitted line.
        drop: Fall of the loss so far, from what a constant guess costs or, of a loss still near it, from its start.
        reference: The loss that `drop` begins at.
        fall: Fall over the last stretch.
        fall_error: Its standard error.
        before: Fall over the stretch before.
        before_error: Its standard error.
        chance: What a constant guess costs; None where that is not known.
        left: Loss of the last validation pass over the least that there is, where that is known: no more can be gained.
        floor: The least that there is.
    """

    stream: str
    validation: bool
    last_step: int
    end: float
    drop: float
    reference: float
    fall: float
    fall_error: float
    before: float
    before_error: float
    chance: float | None
    left: float = math.inf
    floor: float = 0.0

    @property
    def span(self) -> float:
        """What there is to learn: from the loss of a constant guess, else `reference`, down to `floor`."""
        return abs((self.reference if self.chance is None else self.chance) - self.floor)

    @property
    def learned(self) -> float:
        """Share of `span` that was gone at the end; 0 where no constant guess is known."""
        return 0.0 if self.chance is None or not self.span else (self.chance - self.end) / self.span

    @property
    def has_dropped(self) -> float:
        """Share of the loss it began at, over the least that there is, that is gone."""
        return self.drop / max(abs(self.reference - self.floor), 1e-30)

    @property
    def pace(self) -> float:
        """Fall of a stretch as a share of the one before, at most 1: a fall that speeds up is not relied on."""
        return float(np.clip(self.fall / self.before, 0.0, 1.0)) if self.before > self.before_error else 1.0

    @property
    def gain(self) -> float:
        """What half as many steps again would take off the loss, if it goes on flattening out as it did."""
        return min(self.fall * self.pace, self.left)

    @property
    def gain_error(self) -> float:
        """Standard error of `gain`."""
        if self.pace in (0.0, 1.0):
            return self.fall_error
        return float(np.hypot(2 * self.pace * self.fall_error, self.pace**2 * self.before_error))

    def gains_less_than(self, share: float, *, of: float, steps: float = 0.2) -> bool:
        """A plateau as equivalence: even the upper bound of the further gain is a small share of a loss.

        Args:
            share: Of the loss `of`.
            of: Such as the drop so far, or what a constant guess costs.
            steps: Further steps, as a share of those taken.
        """
        most = (self.fall + SURE * self.fall_error) * np.log1p(steps) / np.log(STRETCH)
        return bool(most < share * of)

    def steps_until(self, share: float, most: float = 10.0) -> int:
        """Further steps until a stretch gains less than a share of the drop so far, at most so many times the run.

        A loss above its least is taken to lose no more than half of what is left in one stretch, whatever its pace.
        """
        left, gain, factor = self.end - self.floor, self.gain, 1.0
        while factor < most:
            gain = min(gain, left / 2) if self.end > self.floor else gain
            if gain < share * self.drop:
                break
            factor, left, gain = factor * STRETCH, left - gain, gain * self.pace
        return int((min(factor, most) - 1) * self.last_step)


def validation_trend(record: RunRecord) -> Trend | None:
    """Trend of the primary validation loss, for `RunRecord.memo`; None where its last stretch has too few passes."""
    curve = record.memo(validation_curve)
    if curve is None or (later := curve.steps > 0).sum() < 2 * FEWEST:
        return None
    steps, rows = curve.steps[later].astype(float), curve.losses[later]
    slopes = [_slope(steps, rows @ curve.weights, low, high) for low, high in _stretches(steps[-1])]
    if any(s is None for s in slopes):
        return None
    (fall, error, end), (before, before_error, _) = (s for s in slopes if s is not None)
    if curve.paired:  # of these samples and no others: how far their own falls differ
        inside = steps > steps[-1] / STRETCH**2
        own = _per_column(steps[inside], rows[inside])
        error = float(np.hypot(error, _paired_error(curve, own)))
    return _of_validation(curve, end, (fall, error), (before, before_error))


def latest_passes(record: RunRecord) -> Trend | None:
    """Trend of the last three validation passes, for `RunRecord.memo`; None where there are more, or samples differ.

    The lesser of both falls counts, per stretch. Its error is that of the same samples' mean difference, which knows
    nothing of how the loss of all of them swings from pass to pass.
    """
    curve = record.memo(validation_curve)
    if curve is None or not curve.paired or (later := curve.steps > 0).sum() < FEWEST:
        return None
    if record.memo(validation_trend) is not None:
        return None
    steps, rows = curve.steps[later][-FEWEST:].astype(float), curve.losses[later][-FEWEST:]
    falls = (rows[:-1] - rows[1:]) / np.log(steps[1:] / steps[:-1])[:, None] * np.log(STRETCH)
    before, last = falls @ curve.weights
    fall, error = max(0.0, float(min(last, before))), _paired_error(curve, falls[1])
    return _of_validation(curve, float(rows[-1] @ curve.weights), (fall, error), (float(before), error))


def trend_of(record: RunRecord) -> Trend | None:
    """The surest trend that there is, for `RunRecord.memo`."""
    return record.memo(validation_trend) or record.memo(training_trend) or record.memo(latest_passes)


def promise_of(curve: ValidationCurve) -> float:
    """What a further stretch would take off the validation loss at the pace of the last two of a few passes.

    Minus infinity where the last pass is not the lowest one, infinity where there is but one.
    """
    steps, losses = curve.steps[curve.steps > 0], curve.mean[curve.steps > 0]
    if len(steps) < 2:
        return math.inf
    if losses[-1] > losses.min():
        return -math.inf
    return float((losses[-2] - losses[-1]) / np.log(steps[-1] / steps[-2]) * np.log(STRETCH))


def training_trend(record: RunRecord) -> Trend | None:
    """Trend of the training loss, for `RunRecord.memo`; None where there are too few steps."""
    course = record.memo(loss_course)
    if course is None or not np.isfinite(course.values).all():
        return None
    steps = course.steps.astype(float) + 1
    slopes = [_slope(steps, course.values, low, high) for low, high in _stretches(steps[-1])]
    if any(s is None for s in slopes):
        return None
    (fall, error, end), (before, before_error, _) = (s for s in slopes if s is not None)
    chance, floor, curve = course.chance, course.floor, record.memo(validation_curve)
    if chance is None and curve is not None and curve.same_criterion:
        chance, floor = curve.chance, curve.floor
    start = _begins(course.start, chance, end, floor)
    last = int(steps[-1])
    return Trend(course.stream, False, last, end, start - end, start, fall, error, before, before_error, chance,
                 floor=floor)  # fmt: skip


def _of_validation(curve: ValidationCurve, end: float, fall: tuple[float, float], before: tuple[float, float]) -> Trend:
    """The trend of a validation curve, from the level it ended at and both falls with their errors."""
    chance, floor = curve.chance, curve.floor
    start = _begins(curve.start, chance, end, floor)
    left = math.inf if chance is None else max(float(curve.mean[-1]) - floor, 0.0)
    return Trend(curve.stream, True, int(curve.steps[-1]), end, start - end, start, *fall, *before, chance, left, floor)


def _paired_error(curve: ValidationCurve, own: Array) -> float:
    """Standard error of a mean over the curve's columns, from how far each is from it."""
    return float(np.sqrt(np.sum((curve.weights * (own - own @ curve.weights)) ** 2)))


def _begins(start: float, chance: float | None, end: float, floor: float) -> float:
    """The loss that the drop so far is counted from.

    That of a constant guess, if training began above it: what an untrained net says is no merit. But a net that is
    still near it or above has had to learn that guess first.
    """
    begins = start if chance is None else min(start, chance)
    return start if begins - end < NEAR * abs(begins - floor) else begins


def gained_in_both(record: RunRecord) -> float:
    """Share of a constant guess's loss that is gone in training and, by the same criterion, in validation: the lesser.

    A net may learn by heart what it starts too far away to learn.
    """
    course, curve = record.memo(loss_course), record.memo(validation_curve)
    if course is None:
        return -np.inf
    if curve is None or not curve.same_criterion or course.chance is None or len(curve.steps) < FEWEST:
        return course.gained
    return course.gained if curve.kept is None else min(course.gained, 1 - float(np.median(curve.kept[-FEWEST:])))


def rate_is_steady(record: RunRecord) -> bool:
    """Whether the learning rate of every group kept its size over the last third of the run and is not close to 0."""
    cut = record.steps / STRETCH
    for key in record.keys("lr"):
        series = record.series("lr", key)
        if series is None or not len(series):
            continue
        steps, rates = series.history()
        late = rates[max(int(np.searchsorted(steps, cut, "right")) - 1, 0) :]
        if late.min() <= 0 or late.max() / late.min() > STEADY or late[-1] < BARELY * rates.max():
            return False
    return True


def nothing_learned(record: RunRecord) -> bool:
    """Hardly any of the loss of a constant guess is gone, as far as that is known, for `RunRecord.memo`."""
    course = record.memo(loss_course)
    return course is not None and course.chance is not None and course.gained < STARTED


def has_settled(record: RunRecord) -> bool:
    """The training loss fell and came to rest under a steady rate: steps are long enough for what there is to learn."""
    course, trend = record.memo(loss_course), record.memo(training_trend)
    if course is None or trend is None or course.gained <= STARTED:
        return False
    rest = trend.gains_less_than(RESTS * course.gained, of=course.span, steps=1.0)
    return rest and rate_is_steady(record)


def _stretches(end: float) -> list[tuple[float, float]]:
    return [(end / STRETCH, end), (end / STRETCH**2, end / STRETCH)]


def _slope(steps: Array, values: Array, low: float, high: float) -> tuple[float, float, float] | None:
    """Fall over a stretch, its standard error, and the level at its end; None where there are too few points.

    The slope is Theil and Sen's. Residuals of neighbouring points are alike: the error is widened for that.
    """
    inside = (steps > low * (1 - 1e-9)) & (steps <= high)
    x, y = np.log(steps[inside]), values[inside]
    if len(x) < FEWEST:
        return None
    if len(x) > POINTS:
        starts = np.linspace(0, len(x), POINTS + 1).astype(int)
        size = np.diff(starts)
        x, y = (np.add.reduceat(v, starts[:-1]) / size for v in (x, y))
    i, j = np.triu_indices(len(x), 1)
    slope = float(np.median((y[j] - y[i]) / (x[j] - x[i])))
    level = y - slope * x
    residual = level - np.median(level)
    freedom = len(x) - 2
    scale = float(np.sqrt((residual**2).sum() / freedom)) * (1 + 1.5 / freedom)
    alike = float(np.clip((residual[1:] * residual[:-1]).sum() / max((residual**2).sum(), 1e-300), 0, 0.8))
    error = scale * np.sqrt((1 + alike) / (1 - alike)) / float(np.sqrt(((x - x.mean()) ** 2).sum()))
    width = float(np.log(STRETCH))
    return -slope * width, float(error) * width, float(np.median(level) + slope * np.log(high))


def _per_column(steps: Array, rows: Array) -> Array:
    """Least-squares fall over a stretch of each column."""
    x = np.log(steps)
    x = x - x.mean()
    return np.asarray(-(x @ rows) / (x @ x) * np.log(STRETCH))
