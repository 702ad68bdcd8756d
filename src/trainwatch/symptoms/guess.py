"""What a loss is to be held against: what a constant guess costs, and what a perfect net would leave of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array
from trainwatch.symptoms.ranges import Range, range_of
from trainwatch.symptoms.target_order import target_order

COSTS: dict[str, Callable[[Range], float]] = {
    "mse_loss": lambda targets: targets.sd**2,
    "l1_loss": lambda targets: targets.absolute,
    "smooth_l1_loss": lambda targets: targets.huber,
    "huber_loss": lambda targets: targets.huber,
}  # of a constant guess
SEVERAL = "multilabel_soft_margin_loss"  # the mean over labels of what `binary_cross_entropy_with_logits` takes
GAUSSIAN, POISSON = "gaussian_nll_loss", "poisson_nll_loss"
NAT = 1.0  # by which a Gaussian likelihood must be better than a guess to have it all: it has no end


def chance_of(record: RunRecord, stream: str) -> float | None:
    """Loss of the best constant guess; None where the criterion does not tell.

    Of classes the entropy of the training targets in nats, as far as they were counted, else the logarithm of the
    number of classes; of several labels a sample the mean of their entropies. Of a squared error the variance of the
    targets, of absolute ones and Huber's loss (of width 1) what their median costs. Of likelihoods of numbers see
    `_of_likelihood`.
    """
    facts: dict[str, Any] = record.facts.get("loss", {}).get(stream, {})
    function, arguments = str(facts.get("function")), facts.get("arguments", {})
    if facts.get("reduction") != "mean":
        return None
    if function in COSTS:
        targets = range_of(record, "target_stats", stream)
        wide = any(arguments.get(name, 1.0) != 1.0 for name in ("beta", "delta"))
        cost = float("nan") if targets is None or wide else COSTS[function](targets)
        if function == "mse_loss" and (order := target_order(record, stream)) is not None and order.is_sorted:
            cost = order.variance  # a batch of what lies side by side shows little of it
        return cost if cost > 0 else None
    if function in (GAUSSIAN, POISSON):
        return _of_likelihood(function, arguments, _moments(record, "target_moments", stream))[0]
    per_label = "binary" in function or function == SEVERAL
    if "cross_entropy" not in function and not per_label:
        return None
    width = facts.get("classes") or 0
    labels = record.series("train_classes", "labels")
    if per_label and labels is not None and (rows := labels.history()[1]).shape[1] == width + 1:
        return None if _weighted(arguments) else _of_labels(rows, range_of(record, "target_stats", stream))
    counts = record.series("train_classes", "targets")
    if not _weighted(arguments) and counts is not None and len(counts):
        share = counts.history()[1].astype(float).sum(0)[:-1]
        share = share[share > 0] / max(share.sum(), 1)
        if len(share) > 1:
            return float(_entropy(share))
    return float(np.log(width)) if width > 1 and not per_label else None


def floor_of(record: RunRecord, stream: str) -> float:
    """Loss that is left to a perfect net: of smoothed labels their entropy, of likelihoods see below, of others 0."""
    facts: dict[str, Any] = record.facts.get("loss", {}).get(stream, {})
    function, arguments, width = str(facts.get("function")), facts.get("arguments", {}), facts.get("classes") or 0
    if facts.get("reduction") != "mean":
        return 0.0
    if function in (GAUSSIAN, POISSON):
        return _of_likelihood(function, arguments, _moments(record, "target_moments", stream))[1]
    smoothing = arguments.get("label_smoothing") or 0.0
    if not 0 < smoothing < 1 or width < 2:
        return 0.0
    other = smoothing / width
    own = 1 - smoothing + other
    return float(-own * np.log(own) - (width - 1) * other * np.log(other))


def guess_in_validation(record: RunRecord, stream: str) -> tuple[float | None, float]:
    """What a constant guess costs in a validation stream and what is left to a perfect net, where its targets tell.

    Of a squared error the mean target of every output is guessed; (None, 0) for what is neither that nor a likelihood.
    """
    criterion = str(record.facts.get("validation", {}).get(stream, {}).get("criterion"))
    if criterion in (GAUSSIAN, POISSON):
        arguments = record.facts.get("loss", {}).get(criterion, {}).get("arguments", {})
        return _of_likelihood(criterion, arguments, _moments(record, "val_target_moments", stream))
    row = record.latest("val_spread", stream)
    if criterion != "mse_loss" or row is None:
        return None, 0.0
    spread = float(row[1][1])
    return (spread**2 if np.isfinite(spread) and spread > 0 else None), 0.0


def _moments(record: RunRecord, quantity: str, stream: str) -> Array | None:
    """The moments of all targets: those of the batches, each as heavy as the other."""
    series = record.series(quantity, stream)
    if series is None or not len(series):
        return None
    rows = series.history()[1].astype(float)
    whole = rows.mean(0)
    whole[1] += rows[:, 0].var()
    return np.asarray(whole) if np.isfinite(whole[:2]).all() else None


def _of_likelihood(function: str, arguments: dict[str, Any], moments: Array | None) -> tuple[float | None, float]:
    """The loss of a constant guess, and the least that there is.

    Poisson: of counts y with mean m, a guess costs m - m log m, and y itself would leave the mean of y - y log y; half
    the deviance lies between (McCullagh and Nelder, "Generalized Linear Models", 2.3). Gaussian: with the mean and the
    variance v of the targets a guess costs (1 + log v) / 2. Since nothing bounds it below, a nat less counts as all: a
    net that leaves exp(-2) of the variance, and knows it.
    """
    if moments is None or (function == POISSON and arguments.get("full")):
        return None, 0.0
    mean, variance, own = (float(number) for number in moments[:3])
    if function == POISSON and mean > 0 and np.isfinite(own):
        return mean - mean * float(np.log(mean)), mean - own
    if function == GAUSSIAN and variance > 0:
        guess = (1 + float(np.log(variance)) + (float(np.log(2 * np.pi)) if arguments.get("full") else 0.0)) / 2
        return guess, guess - NAT
    return None, 0.0


def _of_labels(counts: Array, targets: Range | None) -> float | None:
    """Mean entropy of the labels of a sample; None where some are neither 0 nor 1, and so count for less.

    Args:
        counts: How often each label was 1, and in the last column the number of samples, shape (T, labels + 1).
        targets: Where their entries lie.
    """
    if targets is None or targets.whole < 1 or targets.least < 0 or targets.most > 1:
        return None
    total = counts.astype(float).sum(0)
    positive, samples = total[:-1], total[-1]
    cost = float(_entropy(np.array([positive, samples - positive]) / max(samples, 1.0)).mean())
    return cost if cost > 0 else None


def _entropy(share: Array) -> Array:
    """In nats, of shares along the first axis."""
    return np.asarray(-(share * np.log(np.where(share > 0, share, 1.0))).sum(0))


def _weighted(arguments: dict[str, Any]) -> bool:
    """Some argument changes what a constant guess costs."""
    given = (arguments.get(name) for name in ("weight", "pos_weight", "label_smoothing"))
    return any(value is not None and np.any(np.asarray(value) != 0) for value in given)
