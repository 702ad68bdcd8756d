"""How far validation samples are from training samples: by their inputs within classes, and by the classes' shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array
from trainwatch.symptoms.classes import confusions, train_classes

MOST_CLASSES = 32  # targets with more different values are numbers: all samples are then compared at once
FEWEST = 5  # of a class in both kinds, for it to be compared


@dataclass(frozen=True)
class Apart:
    """The chance that a validation sample scores higher than a training sample (area under the ROC curve).

    Attributes:
        auc: 0.5 where nothing tells them apart; within classes, averaged over them.
        error: Its standard error.
    """

    auc: float
    error: float

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.auc - 1.96 * self.error


@dataclass(frozen=True)
class InputShift:
    """What tells validation inputs from training inputs.

    Attributes:
        told: By the votes of a forest that has not seen them.
        further: By how far their neighbours in training are.
        train, val: Samples.
        features: (index, share of what the forest goes by, mean in training, in validation) of the first few.
        step: Optimiser steps taken before.
        aligned: As `told`, of features with the same mean and deviation in both; None where that was not measured.
    """

    told: Apart
    further: Apart
    train: int
    val: int
    features: list[tuple[int, float, float, float]]
    step: int
    aligned: Apart | None = None


@dataclass(frozen=True)
class ClassShift:
    """Shares of the classes in training and in validation.

    Attributes:
        distance: Half the sum of their absolute differences (total variation).
        chance: How likely chance alone makes the counts so different (chi-squared test of homogeneity).
        unseen: Share of the validation samples whose class never occurred in training.
        train, val: Shares, shape (K,).
    """

    distance: float
    chance: float
    unseen: float
    train: Array
    val: Array


def not_comparable(record: RunRecord) -> str:
    """Why held samples tell nothing of the inputs of both parts; empty where nothing is known against it.

    Augmented variants of few samples lie close to one another, and new samples further off, whatever the split.
    """
    inputs, samples = record.memo(input_shift), record.facts.get("run", {}).get("train_samples")
    if inputs is not None and samples and inputs.train > samples:
        return f"the {inputs.train} training samples that are held are variants of {samples}"
    return str(record.facts.get("switched_off", {}).get("held_shift") or "")


def input_shift(record: RunRecord) -> InputShift | None:
    """What was measured at the end, for `RunRecord.memo`; None where it was not."""
    rows = [record.latest("held_shift", kind) for kind in ("train", "val")]
    named = record.latest("shift_features", "inputs")
    if rows[0] is None or rows[1] is None:
        return None
    train, val = (row[1][~np.isnan(row[1][:, 1])] for row in rows if row is not None)
    groups = _groups(train[:, 0], val[:, 0])
    told, further = (within([(train[a, column], val[b, column]) for a, b in groups]) for column in (1, 2))
    features = [] if named is None else [tuple(row) for row in named[1].tolist() if np.isfinite(row[0])]
    listed = [(int(i), w, a, b) for i, w, a, b in features]
    votes = [record.latest("shift_aligned", kind) for kind in ("train", "val")]
    rows_of = [row[1][~np.isnan(row[1])] for row in votes if row is not None]
    aligned = within([(rows_of[0][a], rows_of[1][b]) for a, b in groups]) if len(rows_of) == len(votes) else None
    return InputShift(told, further, len(train), len(val), listed, rows[0][0], aligned)


def class_shift(record: RunRecord) -> ClassShift | None:
    """Of all targets seen, for `RunRecord.memo`; None where classes were not counted on both sides."""
    from scipy.stats import chi2  # not on the live path: called at the end alone

    classes, val = record.memo(train_classes), _val_counts(record)
    if classes is None or val is None or len(classes.counts) != len(val):
        return None
    train = classes.counts
    # Where it is not known how often each sample was seen, training is taken to have as many as validation.
    counts = np.stack([train if classes.per_epoch else train * val.sum() / train.sum(), val])
    shares = counts / counts.sum(1, keepdims=True)
    seen = counts[:, counts.sum(0) > 0]
    expected = seen.sum(1, keepdims=True) * seen.sum(0) / seen.sum()
    statistic = float(((seen - expected) ** 2 / expected).sum())
    return ClassShift(
        float(np.abs(shares[0] - shares[1]).sum() / 2),
        float(chi2.sf(statistic, max(seen.shape[1] - 1, 1))),
        float(shares[1][counts[0] == 0].sum()),
        shares[0],
        shares[1],
    )


def _val_counts(record: RunRecord) -> Array | None:
    """Validation samples of each class: of the last pass of a run, or of audited data."""
    if tables := record.memo(confusions):
        return tables[-1].totals
    counted = record.latest("val_classes", "targets")
    return None if counted is None or not counted[1][:-1].sum() else counted[1][:-1]


def within(groups: list[tuple[Array, Array]]) -> Apart:
    """The area under the ROC curve within groups, averaged with their weights, and its error.

    The error is that of DeLong, DeLong and Clarke-Pearson (1988): the spread of each sample's own share of the pairs
    that it wins. Pairs are weighted by 1 / (1 / m + 1 / n) of their group, as differences of means would be.

    Args:
        groups: Scores of training samples, shape (m,), and of validation samples, shape (n,).
    """
    if not groups:
        return Apart(0.5, 0.5)
    found = [_auc(a, b) for a, b in groups]
    weight = np.array([1 / (1 / len(a) + 1 / len(b)) for a, b in groups])
    weight /= weight.sum()
    area, variance = np.array(found).T
    return Apart(float(weight @ area), float(np.sqrt(weight**2 @ variance)))


def _auc(low: Array, high: Array) -> tuple[float, float]:
    """Area under the curve and its variance; half a win for a tie."""
    ordered_low, ordered_high = np.sort(low), np.sort(high)
    wins = (np.searchsorted(ordered_low, high) + np.searchsorted(ordered_low, high, side="right")) / (2 * len(low))
    lost = 1 - (np.searchsorted(ordered_high, low) + np.searchsorted(ordered_high, low, side="right")) / (2 * len(high))
    return float(wins.mean()), float(wins.var(ddof=1) / len(high) + lost.var(ddof=1) / len(low))


def _groups(train: Array, val: Array) -> list[tuple[Array, Array]]:
    """Rows of training and of validation samples of each class; all at once where targets are numbers."""
    labels = np.union1d(train, val)
    if len(labels) > MOST_CLASSES or (labels != np.round(labels)).any():
        return [(np.arange(len(train)), np.arange(len(val)))]
    pairs = [(np.flatnonzero(train == label), np.flatnonzero(val == label)) for label in labels]
    return [(a, b) for a, b in pairs if min(len(a), len(b)) >= FEWEST]
