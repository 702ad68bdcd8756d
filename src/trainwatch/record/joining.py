"""How the rows that several processes measured become one row of the run. Arithmetic only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from trainwatch.record.series import Array

COLUMNS = 256  # of the matrices of a validation pass
SCORES = 20_000
SAME = 1e-3  # relative difference up to which losses per sample are those of the same samples

Join = Callable[[Sequence[Array], Array], Array]  # rows of the processes, samples of each -> one row


def sharded_norms(rows: Sequence[Array], copies: Array) -> Array:
    """L2 norms of gradients from those of their parts.

    Args:
        rows: Of each process, shape (P,).
        copies: For each parameter, how many processes hold the same part; 0 where each holds the whole.
    """
    squares = np.square(np.stack(rows).astype(np.float64)).sum(0)
    whole = copies == 0
    return np.where(whole, rows[0], np.sqrt(squares / np.where(whole, 1, copies)))


def sharded_others(rows: Sequence[Array], copies: Array) -> Array:
    """L0, L1 and L-infinity norms likewise, shape (P, 3)."""
    stacked = np.stack(rows).astype(np.float64)
    whole = copies[:, None] == 0
    sums = stacked.sum(0) / np.where(whole, 1, copies[:, None])
    return np.where(whole, rows[0], np.concatenate([sums[:, :2], stacked.max(0)[:, 2:]], 1))


def mean(rows: Sequence[Array], samples: Array) -> Array:
    """Mean over processes, each as heavy as the other: what data-parallel training minimises."""
    return np.asarray(np.mean(np.stack(rows).astype(np.float64), 0))


def by_samples(rows: Sequence[Array], samples: Array) -> Array:
    """Mean over all samples."""
    return np.asarray(np.average(np.stack(rows).astype(np.float64), axis=0, weights=samples))


def total(rows: Sequence[Array], samples: Array) -> Array:
    """Sum, of counts."""
    return np.asarray(np.sum(np.stack(rows), 0))


def spread(rows: Sequence[Array], samples: Array) -> Array:
    """Standard deviation, from the mean variance within the processes."""
    return np.asarray(np.sqrt(by_samples([np.square(r) for r in rows], samples)))


def error(rows: Sequence[Array], samples: Array) -> Array:
    """Mean, root mean square, largest and (about) median absolute error."""
    absolute, _, _, median = by_samples(rows, samples)
    square = np.sqrt(np.average([float(r[1]) ** 2 for r in rows], weights=samples))
    return np.array([absolute, square, max(float(r[2]) for r in rows), median])


def moments(rows: Sequence[Array], samples: Array) -> Array:
    """Those of the targets of all processes."""
    joined = by_samples(rows, samples)
    between = by_samples([np.full(4, (float(r[0]) - float(joined[0])) ** 2) for r in rows], samples)
    return np.array([joined[0], joined[1] + between[1], joined[2], joined[3] + between[3], float(np.sum(samples))])


def scores(rows: Sequence[Array], samples: Array) -> Array:
    """Scores of all samples, or of so many at even distances."""
    whole = np.concatenate(rows)
    return np.asarray(whole[np.linspace(0, len(whole) - 1, min(len(whole), SCORES)).astype(int)])


def columns(rows: Sequence[Array], sizes: Sequence[Array]) -> Array:
    """Means of groups of samples side by side, at most `COLUMNS` of them.

    Args:
        rows: Of each process, shape (groups,); NaN where a sample has no value.
        sizes: Samples of each group, of each process.
    """
    values, weights = np.concatenate(rows).astype(np.float64), np.concatenate(sizes).astype(np.float64)
    there = ~np.isnan(values)
    sums = _grouped(np.where(there, values * weights, 0.0))
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / _grouped(np.where(there, weights, 0.0)))


def group_sizes(sizes: Sequence[Array]) -> Array:
    """Samples of each group of `columns`."""
    return _grouped(np.concatenate(sizes).astype(np.float64))


def _grouped(values: Array) -> Array:
    n = len(values)
    return values if n <= COLUMNS else np.asarray(np.bincount(np.arange(n) * COLUMNS // n, values, COLUMNS))


PASS: dict[str, Join] = {
    "val_loss": by_samples,
    "val_confusion": total,
    "val_scores": scores,
    "val_spread": spread,
    "val_error": error,
    "val_churn": by_samples,
    "val_target_moments": moments,
    "val_train_mode": by_samples,
    "val_with_grad": by_samples,
}
"""What is measured once a validation pass -> how it is joined."""

GROUPED = ("val_sample_loss", "val_sample_correct", "val_group_size")
NORMS = {"grad_norm": sharded_norms, "other_grad_norms": sharded_others}
COUNTS = ("train_classes", "batches_without_class")
JOINED = frozenset({*PASS, *GROUPED, *NORMS, *COUNTS, "train_loss"})
