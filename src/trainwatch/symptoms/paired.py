"""How far a validation curve has risen from its minimum, against the noise of samples and of iterates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import Array, ValidationCurve, validation_curve

REPLICATES = 200
OUTLIERS = 1.7  # a few wild passes may raise the noise to this many times what the other passes show
FOLLOWED = 0.3  # autocorrelation of the noise beyond that of the residuals of a fit that follows its slow waves
MOST_ALIKE = 0.9
BEYOND = 5.0  # times what there was to lose: passes further up than that are all alike
UNSURE = 1.2  # the noise of iterates and its autocorrelation are themselves known from few passes


@dataclass(frozen=True)
class Rise:
    """The rise of a curve above its minimum.

    "Last minus lowest" is a selected difference: it is positive for noise alone. `rise` is therefore that
    difference less what a falling or flat curve under the same noise would show.

    Attributes:
        best: Index of the pass with the lowest loss, a stray low one not counted.
        best_step: Its optimiser step.
        best_steps: 95 % interval of the step at which the curve turns.
        minimum: Level of the loss there, which one pass alone cannot set.
        end: Loss now: median of the last passes.
        last: How many passes `end` rests on.
        rise: `end` - `minimum`, less the selection bias.
        error: Standard error of `rise`.
        interval: 95 % interval of `rise`.
        probability: Share of replicates without a rise that show less than was observed.
        noise: Standard deviation of the curve from pass to pass around its trend.
    """

    best: int
    best_step: int
    best_steps: tuple[int, int]
    minimum: float
    end: float
    last: int
    rise: float
    error: float
    interval: tuple[float, float]
    probability: float
    noise: float


def validation_rise(record: RunRecord) -> Rise | None:
    """The rise of the primary validation loss, for `RunRecord.memo`; None below four passes."""
    curve = record.memo(validation_curve)
    return rise_of(curve) if curve is not None and len(curve.steps) > 3 else None


def rise_of(curve: ValidationCurve) -> Rise:
    """Measure the rise of a curve of at least four passes.

    A likelihood without bound may rise a hundredfold, and swing by as much: that it has risen is no less sure for it.
    So what lies far up is drawn down to a bound, and the rise and its errors stretched by as much again.
    """
    low, most = _bounds(curve)
    above = curve.mean > most
    if not above.any():
        return _rise(curve)
    factor = np.where(above, (most - low) / (np.maximum(curve.mean, most) - low), 1.0)
    found = _rise(replace(curve, losses=low + (curve.losses - low) * factor[:, None]))
    end = float(np.median(curve.mean[-found.last :]))
    stretch = max(1.0, (end - low) / (found.end - low)) if found.end > low else 1.0
    rise, error = found.rise * stretch, found.error * stretch
    return replace(found, end=end, rise=rise, error=error, interval=(rise - 1.96 * error, rise + 1.96 * error))


def _bounds(curve: ValidationCurve) -> tuple[float, float]:
    """The lowest level, and one that is `BEYOND` times what there was to lose above it."""
    low = float(_steadied(curve.mean).min())
    top = curve.start if curve.chance is None else min(curve.start, curve.chance)
    return low, low + BEYOND * max(top - low, abs(low - curve.floor))


def _rise(curve: ValidationCurve) -> Rise:
    """Measure it by a bootstrap of the curve's columns.

    Each replicate redoes the whole curve and its minimum: columns are drawn anew (independently per pass where they
    are not paired) and iterate noise is added, once around a curve that never rises (the null, for the bias and
    `probability`) and once around the unimodal fit (for the errors).
    """
    y, rng = curve.mean, np.random.default_rng(0)
    length, last = len(y), last_passes(len(y))
    level = int(_steadied(y).argmin())
    minimum = float(_steadied(y)[level])
    half = _width(length) // 2
    near = slice(max(level - half, 0), level + half + 1)
    best = near.start + int(y[near].argmin())
    fit = unimodal(y, best)
    noise, alikeness, freedom = _iterate_noise(y, fit, best)
    jitter = noise * _wandering(rng.standard_normal((REPLICATES, length)), alikeness)
    sampling = _sampling(curve, rng)
    null = -_isotonic(-y) + jitter
    alike = fit + jitter + sampling
    chance = np.median(null[:, -last:], axis=1) - _steadied(null).min(1)
    end = float(np.median(y[-last:]))
    rise = end - minimum - float(chance.mean())
    drawn = np.median((y + sampling)[:, -last:], axis=1) - np.median((y + sampling)[:, near], axis=1)
    # Noise known from few residuals is itself uncertain: widen, as Student's t does.
    spread = float(np.hypot(UNSURE * chance.std() * (1 + 1.5 / freedom), _downward(drawn)))
    turns = np.percentile(_steadied(alike).argmin(1), (2.5, 97.5)).round().astype(int)
    return Rise(
        best=best,
        best_step=int(curve.steps[best]),
        best_steps=(int(curve.steps[turns[0]]), int(curve.steps[turns[1]])),
        minimum=minimum,
        end=end,
        last=last,
        rise=rise,
        error=spread,
        interval=(rise - 1.96 * spread, rise + 1.96 * spread),
        probability=float((chance < end - minimum).mean()),
        noise=noise,
    )


def last_passes(length: int) -> int:
    """How many passes "now" stands for: a median over them outvotes stray passes."""
    return _width(length) if length > 5 else 2


def _width(length: int) -> int:
    """Passes that a level is the median of, an odd number: three, and more of longer curves."""
    return max(3, length // 8 // 2 * 2 + 1)


def _steadied(y: Array) -> Array:
    """Running medians (of short curves the passes themselves), shape as `y`: (..., T).

    The lowest of many noisy passes is a stray one; the lowest running median is a level.
    """
    length = y.shape[-1]
    if length < 8:
        return y
    width = _width(length)
    middle = np.median(np.lib.stride_tricks.sliding_window_view(y, width, axis=-1), axis=-1)
    edge = width // 2
    whole = np.concatenate([y[..., :edge], middle, y[..., length - edge :]], axis=-1)
    return np.asarray(whole.clip(middle.min(-1, keepdims=True)))


def unimodal(y: Array, turn: int) -> Array:
    """Least-squares fit that falls until `turn` and rises after it."""
    left, right = _isotonic(y[turn::-1]), _isotonic(y[turn:])
    return np.concatenate([left[:0:-1], [(left[0] + right[0]) / 2], right[1:]])


def _isotonic(y: Array) -> Array:
    """Rising least-squares fit, by pooling adjacent violators."""
    levels: list[float] = []
    sizes: list[int] = []
    for value in y.tolist():
        levels.append(value)
        sizes.append(1)
        while len(levels) > 1 and levels[-2] > levels[-1]:
            size = sizes[-2] + sizes[-1]
            levels[-2:] = [(levels[-2] * sizes[-2] + levels[-1] * sizes[-1]) / size]
            sizes[-2:] = [size]
    return np.repeat(levels, sizes)


def _sampling(curve: ValidationCurve, rng: np.random.Generator) -> Array:
    """Deviations of resampled curves from the curve, shape (REPLICATES, T)."""
    length, columns = curve.losses.shape
    if columns == 1:
        return np.zeros((REPLICATES, length))  # no spread over samples was seen: iterate noise alone
    if not curve.paired:
        centred = curve.losses - curve.mean[:, None]
        return np.asarray(rng.standard_normal((REPLICATES, length)) * np.sqrt(centred**2 @ curve.weights**2))
    drawn = rng.multinomial(columns, np.full(columns, 1 / columns), size=REPLICATES) * curve.weights
    return np.asarray(drawn @ curve.losses.T / drawn.sum(1, keepdims=True) - curve.mean)


def _downward(drawn: Array) -> float:
    """Standard error towards lower values, from the lower tail.

    A few samples with ever larger losses skew the sampling distribution upwards; how much lower the rise may be is
    what counts against it.
    """
    return float((np.median(drawn) - np.percentile(drawn, 2.275)) / 2)


def _iterate_noise(y: Array, fit: Array, best: int) -> tuple[float, float, float]:
    """Noise from pass to pass since the minimum, its autocorrelation, and its degrees of freedom.

    The noise is the larger of two views: second differences see fast noise whatever the trend, residuals of the
    unimodal fit see slow waves. The fit follows those in part, which makes its residuals less alike than the noise.
    """
    # With too few passes after the minimum those before it help out, but not the steep start.
    begin = best if len(y) - best > 4 else max(0, min(best, len(y) // 3, len(y) - 5))
    y, fit = y[begin:], fit[begin:]
    bend = (y[:-2] + y[2:]) / 2 - y[1:-1]
    pieces = 1 + np.count_nonzero(np.diff(fit))
    residual = y - fit
    slow = _scale(residual) * np.sqrt(len(y) / max(len(y) - 1.5 * pieces, len(y) / 3))
    limit = 3 * _scale(residual)
    cut = np.clip(residual - np.median(residual), -limit, limit)
    alike = float((cut[1:] * cut[:-1]).sum() / max((cut**2).sum(), 1e-300)) + FOLLOWED + 2 / len(y)
    return float(max(_scale(bend) / np.sqrt(1.5), slow)), min(max(alike, 0.0), MOST_ALIKE), max(0.6 * len(bend), 1.0)


def _wandering(draws: Array, alike: float) -> Array:
    """Noise of deviation 1 whose neighbours are correlated by `alike`, from independent draws, shape (n, T)."""
    if alike <= 0:
        return draws
    wandering = draws.copy()
    for i in range(1, draws.shape[1]):
        wandering[:, i] = alike * wandering[:, i - 1] + np.sqrt(1 - alike**2) * draws[:, i]
    return wandering


def _scale(deviations: Array) -> float:
    """Root mean square, kept from being carried away by a few wild passes."""
    rms = float(np.sqrt((deviations**2).mean()))
    return min(rms, OUTLIERS * 1.4826 * float(np.median(np.abs(deviations)))) if len(deviations) >= 10 else rms
