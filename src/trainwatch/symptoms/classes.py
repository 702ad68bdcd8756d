"""Classes: how often they occur in training, and how well each is recognised in validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import Array, passes, primary_stream


@dataclass(frozen=True)
class TrainClasses:
    """Training targets per class.

    Attributes:
        counts: Targets seen of each class, scaled to one epoch where the size of the training set is known, shape (K,).
        names: Name of each class.
        per_epoch: Whether `counts` are those of one epoch.
    """

    counts: Array
    names: tuple[str, ...]
    per_epoch: bool

    @property
    def present(self) -> Array:
        """Indices of the classes that occur."""
        return np.flatnonzero(self.counts > 0)

    @property
    def ratio(self) -> float:
        """Largest class over smallest, among those that occur."""
        seen = self.counts[self.present]
        return float(seen.max() / seen.min())

    @property
    def least(self) -> float:
        """Smallest class over an even share, among those that occur."""
        seen = self.counts[self.present]
        return float(seen.min() / seen.mean())

    def rarer_than(self, share: float) -> Array:
        """Indices of the classes that have at most so much of an even share of the samples."""
        seen = self.counts[self.present]
        return np.asarray(self.present[seen <= share * seen.mean()])

    @property
    def beyond_chance(self) -> float:
        """How much more uneven the classes are than as many samples drawn evenly: standard deviations of chi-square."""
        seen = self.counts[self.present]
        even, freedom = seen.mean(), max(len(seen) - 1, 1)
        return float((((seen - even) ** 2 / even).sum() - freedom) / np.sqrt(2 * freedom))

    @property
    def entropy(self) -> float:
        """Entropy of the class shares over its maximum: 1 is balanced, 0 is one class only."""
        share = self.counts[self.present] / self.counts.sum()
        return float(-(share * np.log(share)).sum() / np.log(max(len(share), 2)))


@dataclass(frozen=True)
class Confusion:
    """One validation pass as a table: rows are true classes, columns predicted ones."""

    step: int
    table: Array

    @property
    def totals(self) -> Array:
        return np.asarray(self.table.sum(1))

    @property
    def hits(self) -> Array:
        return np.asarray(np.diag(self.table))

    @property
    def recalls(self) -> Array:
        """Recall per class; NaN for a class without samples."""
        return _share(self.hits, self.totals)

    @property
    def accuracy(self) -> float:
        return float(self.hits.sum() / self.table.sum())

    @property
    def majority_rate(self) -> float:
        """Accuracy of always naming the most frequent class."""
        return float(self.totals.max() / self.table.sum())

    @property
    def balanced_accuracy(self) -> float:
        return float(np.nanmean(self.recalls))

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur or are predicted."""
        return float(np.nanmean(_share(2 * self.hits, self.totals + self.table.sum(0))))

    @property
    def mcc(self) -> float:
        """Matthews' correlation coefficient, 0 where one side is constant."""
        n, true, named = self.table.sum(), self.totals, self.table.sum(0)
        scale = np.sqrt((n**2 - (true**2).sum()) * (n**2 - (named**2).sum()))
        return float((self.hits.sum() * n - true @ named) / scale) if scale > 0 else 0.0


def train_classes(record: RunRecord) -> TrainClasses | None:
    """Counts of single-label training targets, for `RunRecord.memo`; None where none were seen."""
    series = record.series("train_classes", "targets")
    if series is None or not len(series):
        return None
    seen = np.nansum(series.history()[1].astype(float), axis=0)[:-1]  # the last column counts ignored labels
    if not seen.sum():
        return None
    samples = record.facts.get("run", {}).get("train_samples")
    whole = bool(samples) and seen.sum() >= samples
    counts = seen * (samples / seen.sum()) if whole else seen
    return TrainClasses(counts, class_names(record, len(counts)), whole)


def class_names(record: RunRecord, count: int) -> tuple[str, ...]:
    """Names of the classes: those given, else their indices."""
    given = record.facts.get("class_names") or ()
    return tuple(str(given[i]) if i < len(given) else str(i) for i in range(count))


def mean_of(passes: Sequence[Confusion]) -> Confusion:
    """The mean of some passes over the same samples, as the last of them."""
    return Confusion(passes[-1].step, np.mean([one.table for one in passes], axis=0))


def confusions(record: RunRecord) -> list[Confusion]:
    """The tables of the primary stream's passes, oldest first, for `RunRecord.memo`; empty passes left out."""
    stream = primary_stream(record)
    steps, rows = passes(record, "val_confusion", stream) if stream else (np.zeros(0), np.zeros(0))
    return [Confusion(int(s), np.nan_to_num(t)) for s, t in zip(steps, rows, strict=True) if np.nansum(t) > 0]


def share_bounds(hits: float, total: float, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson bounds of a share; (0, 1) where nothing was counted."""
    from scipy.special import betaincinv  # here, since most looks never need it

    tail = (1 - level) / 2
    low = float(betaincinv(hits, total - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, total - hits, 1 - tail)) if hits < total else 1.0
    return low, high


def share_difference(hits: float, total: float, other_hits: float, other_total: float) -> tuple[float, float]:
    """A second share minus the first and its standard error (Agresti and Caffo: one hit and one miss added to each)."""
    p, q = (hits + 1) / (total + 2), (other_hits + 1) / (other_total + 2)
    return q - p, float(np.sqrt(p * (1 - p) / (total + 2) + q * (1 - q) / (other_total + 2)))


def average_precision(scores: Array, targets: Array) -> float:
    """Area under the precision-recall curve, as the mean precision at each positive; ties share their precision."""
    order = np.argsort(-scores, kind="stable")
    scores, targets = scores[order], targets[order] > 0.5
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # last place of each run of ties
    found = np.cumsum(targets)[ends]
    return float((found / (ends + 1) @ np.diff(found, prepend=0)) / max(targets.sum(), 1))


def label_scores(record: RunRecord) -> tuple[int, Array] | None:
    """Step, and logits and targets of yes / no labels, of the pass recorded last, for `RunRecord.memo`.

    Returns:
        The step and an array of shape (samples, labels, 2); None where no such labels were seen. Rows of two numbers
        a sample, as older records have them, are scores of one label, and probabilities where all lie within [0, 1].
    """
    stream = primary_stream(record)
    steps, rows = passes(record, "val_scores", stream) if stream else (np.zeros(0), np.zeros(0))
    if not len(steps):
        return None
    pairs = rows[-1]
    if pairs.ndim == 2:
        scores, targets = pairs.T
        known = scores[np.isfinite(scores)]
        if len(known) and known.min() >= 0 and known.max() <= 1:
            scores = np.clip(scores, 1e-7, 1 - 1e-7)
            scores = np.log(scores / (1 - scores))
        pairs = np.stack([scores, targets], -1)[:, None]
    return int(steps[-1]), pairs


def scores_of(pairs: Array, label: int) -> tuple[Array, Array] | None:
    """Logits and targets (0 or 1) of one label; None unless both targets occur, or where some are shares between them.

    Absent and ignored ones are left out.

    Args:
        pairs: Logits and targets, shape (samples, labels, 2).
        label: Which label.
    """
    scores, targets = pairs[:, label].T
    known = np.isfinite(scores) & np.isin(targets, (0, 1))
    shares = (targets > 0) & (targets < 1)
    scores, targets = scores[known], targets[known]
    return (scores, targets) if len(np.unique(targets)) == 2 and not shares.any() else None


def binary_scores(record: RunRecord) -> tuple[Array, Array] | None:
    """Logits and targets of the last recorded pass of a task with one label, or None."""
    found = record.memo(label_scores)
    return scores_of(found[1], 0) if found is not None and found[1].shape[1] == 1 else None


def temperature(logits: Array, targets: Array) -> float:
    """Divisor of the logits that gives the lowest cross-entropy on these samples, on a grid from 1/10 to 10."""
    grid = np.geomspace(0.1, 10, 201)
    signed = np.where(targets > 0.5, -1, 1) * logits / grid[:, None]
    return float(grid[np.logaddexp(0, signed).mean(1).argmin()])


def _share(part: Array, whole: Array) -> Array:
    return np.asarray(np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0))
