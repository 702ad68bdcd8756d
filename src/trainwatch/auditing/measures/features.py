"""Each feature by itself: what is not a number, its range and scale, values that stand for something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trainwatch.auditing.measures.look import STEP, Array, Cannot, Look, chunks
from trainwatch.auditing.samples import Samples

QUANTITIES = ("feature_stats", "input_stats", "target_stats")
WIDTH = 12  # numbers of a feature in `feature_stats`
FEWEST_VALUES = 12  # different ones, of a feature in which one may stand for "not known"; of nines, 3
FEWEST_IDS = 50  # samples, from which on numbers that never recur are no chance
QUANTILES_OF = 4096  # samples whose entries tell the quantiles
PLACES = 5  # named of what is not a number
LARGEST = float(np.finfo(np.float32).max)  # that nets, which compute in single precision, do not take for infinite


def measure(look: Look) -> None:
    """Write `feature_stats`, `input_stats` and `target_stats` of each part, and facts about features."""
    record = look.record
    names = look.train.feature_names
    record.set_fact("feature_names", list(names) or None)
    record.set_fact("layout", look.train.layout)
    if look.train.inputs.dtype.kind not in "buif":
        raise Cannot(f"the inputs are no numbers, but {look.train.inputs.dtype}")
    train: Array | None = None
    for split, part in look.parts.items():
        stats = np.stack([_of(column, part) for column in columns(part)])
        if train is not None and train.shape == stats.shape:
            stats[:, 11] = [_beyond(c, a, b) for c, (a, b) in zip(columns(part), train[:, 3:5], strict=True)]
        train = stats if split == "train" else train
        record.append("feature_stats", split, STEP, stats)
        if bad := _places(part, stats):
            look.note("not_numbers", split, bad)
        if not (part.categorical and all(part.categorical)):  # whose numbers are on no scale
            record.append("input_stats", split, STEP, _whole(stats, part, look))
        if look.task == "regression" and part.targets is not None:
            record.append("target_stats", split, STEP, _of_targets(part.targets))
    record.set_fact("scale_chance", dict(_scale_chances(look)))


def columns(samples: Samples) -> Iterator[Array]:
    """The entries of each feature: a column of rows, a channel of images, the last axis of others."""
    x = samples.inputs
    if x.ndim <= 2 and samples.layout != "rows":
        yield x.reshape(-1)
        return
    x = x.reshape(len(x), 1) if x.ndim == 1 else x
    for j in range(x.shape[-1]):
        yield x[..., j].reshape(-1)


def _of(column: Array, samples: Samples) -> Array:
    """A row of `feature_stats`, shape (WIDTH,): see docs/architecture.md."""
    row = np.full(WIDTH, np.nan)
    bad = ~_finite(column) if column.dtype.kind == "f" else None
    row[0] = len(column)
    row[1] = np.isnan(column).sum() if bad is not None else 0
    row[2] = bad.sum() - row[1] if bad is not None else 0
    row[11] = 0
    finite = column[~bad] if bad is not None and row[1] + row[2] else column
    if not len(finite):
        return row
    row[3:7] = finite.min(), finite.max(), *_moments(finite)
    if samples.layout == "rows":
        values, counts = np.unique(finite, return_counts=True)
        row[7] = len(values)
        row[8:10] = _stands_for_missing(values.astype(np.float64), counts)
        row[10] = _numbered(finite, values)
    return row


def _finite(entries: Array) -> Array:
    """Which entries are numbers to a net."""
    return np.asarray(np.abs(entries) <= LARGEST)


def _moments(column: Array) -> tuple[float, float]:
    """Mean and standard deviation, in double precision."""
    mean = sum(float(part.sum(dtype=np.float64)) for part in chunks(column)) / len(column)
    square = sum(float(((part.astype(np.float64) - mean) ** 2).sum()) for part in chunks(column)) / len(column)
    return mean, square**0.5


def _stands_for_missing(values: Array, counts: Array) -> tuple[float, float]:
    """A value that recurs and stands further outside than the other ones are spread, and how often; else NaN.

    Args:
        values: The different values, rising.
        counts: How often each occurs.
    """
    for end, others, shares in ((0, values[1:], counts[1:]), (-1, values[:-1], counts[:-1])):
        nines = _is_nines(values[end])
        if len(values) >= (3 if nines else FEWEST_VALUES):
            upto = np.cumsum(shares) / shares.sum()
            spread = others[np.searchsorted(upto, 0.99)] - others[np.searchsorted(upto, 0.01)]
            gap = abs(values[end] - others[end])
            far = spread / 4 if nines else spread
            if values[end] != 0 and counts[end] >= max(3, 0.001 * counts.sum()) and gap > far > 0:
                return float(values[end]), float(counts[end])
    return np.nan, np.nan


def _is_nines(value: float) -> bool:
    """-999 and the like, which nobody measures."""
    digits = f"{abs(value):.15g}"
    return len(digits) > 1 and set(digits) == {"9"}


def _numbered(column: Array, values: Array) -> bool:
    """Whether each sample has a whole number of its own, as row numbers and keys do."""
    if len(values) < max(FEWEST_IDS, len(column)) or (values != np.round(values)).any():
        return False
    rises = np.diff(column.astype(np.float64))
    return bool((rises > 0).all() or (rises < 0).all() or values[-1] - values[0] <= 2 * len(values))


def _beyond(column: Array, least: float, most: float) -> int:
    """Entries outside of training's range."""
    return int(((column < least) | (column > most)).sum())


def _places(samples: Samples, stats: Array) -> dict[str, list[Any]]:
    """Feature -> the first samples in which it is not a finite number."""
    found = {}
    for j in np.flatnonzero(stats[:, 1] + stats[:, 2])[:PLACES].tolist():
        x = samples.inputs[..., j] if len(stats) > 1 else samples.inputs
        bad = np.flatnonzero(~_finite(x.reshape(len(samples), -1)).all(1))[:PLACES]
        found[str(j)] = [named(samples, i) for i in bad.tolist()]
    return found


def named(samples: Samples, row: int) -> Any:
    """The file of a sample, or its position in its source."""
    return samples.files[row] if samples.files else int(samples.places[row])


def _whole(stats: Array, samples: Samples, look: Look) -> Array:
    """The row of `input_stats`, of finite entries; categories have no scale and are left out of the features'."""
    chosen = look.some(len(samples), QUANTILES_OF)
    entries = samples.inputs[chosen].astype(np.float64).reshape(-1)
    entries = entries[_finite(entries)]
    if not len(entries) or np.isnan(stats[:, 3]).all():
        return np.full(9, np.nan)
    n = stats[:, 0] - stats[:, 1] - stats[:, 2]
    mean = np.nansum(n * stats[:, 5]) / n.sum()
    square = np.nansum(n * (stats[:, 5] ** 2 + stats[:, 6] ** 2)) / n.sum()
    low, high = np.quantile(entries, [0.05, 0.95])
    scale = np.hypot(stats[:, 5], stats[:, 6])
    if len(samples.categorical) == len(stats):
        scale = scale[~np.asarray(samples.categorical)]
    scale = scale[np.isfinite(scale)]
    return np.array([
        np.nanmin(stats[:, 3]), np.nanmax(stats[:, 4]), mean, np.sqrt(max(square - mean**2, 0)), low, high,
        (entries == np.round(entries)).mean(), scale.max(), np.median(scale),
    ])  # fmt: skip


def _scale_chances(look: Look) -> Iterator[tuple[str, float]]:
    """How likely chance alone makes sizes in validation so different from those in training (Kolmogorov-Smirnov).

    1 where samples are of another number of entries: other things are measured then.
    """
    from scipy.stats import ks_2samp  # not before it is needed

    parts = look.parts.values()
    if len(parts) < 2:
        return
    inputs = [part.inputs[look.some(len(part), QUANTILES_OF)] for part in parts]
    targets = [part.targets for part in parts if part.targets is not None] if look.task == "regression" else []
    for name, some in (("inputs", inputs), ("targets", targets)):
        finite = [np.where(np.isfinite(x), x, 0).reshape(len(x), -1).astype(np.float64) for x in some]
        if len(some) == len(parts):
            alike = len({x.shape[1] for x in finite}) == 1
            yield name, float(ks_2samp(*((x**2).mean(1) for x in finite)).pvalue) if alike else 1.0


def _of_targets(targets: Array) -> Array:
    """The row of `target_stats`, of finite entries."""
    x = targets[np.isfinite(targets)].astype(np.float64).reshape(-1)
    if not len(x):
        return np.full(7, np.nan)
    low, high = np.quantile(x, [0.05, 0.95])
    return np.array([x.min(), x.max(), x.mean(), x.std(), low, high, (x == np.round(x)).mean()])
