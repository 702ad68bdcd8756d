"""Precision, recall and F1 of yes / no labels over all thresholds, and what the best threshold is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.classes import label_scores, scores_of
from trainwatch.symptoms.curves import Array

REPLICATES = 200
HALF = 0.0  # the logit of 0.5
SHRINK = 0.75  # error on all samples over that on the 37 % out of bag: 0.61 for sampling alone, the choice adds to it


@dataclass(frozen=True)
class PrecisionRecall:
    """One label's samples cut at every threshold, in order of falling threshold.

    Attributes:
        label: Which label.
        step: Optimiser step of the pass.
        scores, targets: Logits, falling, and whether the label is true, shape (n,).
        ends: How many samples lie above each threshold, shape (m,): 0 first, n last. Equal scores are never parted.
        thresholds: As logits, in the middle between neighbouring scores, shape (m,).
    """

    label: int
    step: int
    scores: Array
    targets: Array
    ends: Array
    thresholds: Array

    @property
    def positives(self) -> int:
        return int(self.targets.sum())

    @property
    def found(self) -> Array:
        """Positives above each threshold, shape (m,)."""
        return np.append(0, np.cumsum(self.targets))[self.ends]

    @property
    def precision(self) -> Array:
        """Share of positives above each threshold; 1 where there is nothing above."""
        return np.asarray(np.divide(self.found, self.ends, out=np.ones(len(self.ends)), where=self.ends > 0))

    @property
    def recall(self) -> Array:
        return np.asarray(self.found / self.positives)

    @property
    def f1(self) -> Array:
        return _f1(self.found, self.ends, self.positives)

    @property
    def best(self) -> int:
        """Index of the threshold with the highest F1."""
        return int(self.f1.argmax())

    @property
    def half(self) -> int:
        """Index of the threshold 0.5."""
        return int(np.searchsorted(self.ends, (self.scores > HALF).sum()))

    def at_precision(self, least: float) -> int | None:
        """Index of the lowest threshold with such a precision, which finds the most; None where there is none."""
        reached = np.flatnonzero((self.precision >= least) & (self.found > 0))
        return int(reached[-1]) if len(reached) else None

    def at_recall(self, least: float) -> int:
        """Index of the highest threshold with such a recall, which names the fewest."""
        return int(np.argmax(self.recall >= least))

    def probability(self, index: int) -> float:
        """A threshold as a probability."""
        return float((1 + np.tanh(self.thresholds[index] / 2)) / 2)  # the sigmoid, which does not overflow so


@dataclass(frozen=True)
class Gain:
    """What the best threshold is worth on samples that it was not chosen on.

    Attributes:
        f1: F1 at the threshold chosen.
        before: F1 without it: at 0.5 or, where that is higher, of naming every sample.
        value: Mean of `f1` - `before` over the replicates.
        error: Standard error of `value`.
    """

    f1: float
    before: float
    value: float
    error: float


def precision_recall(record: RunRecord) -> list[PrecisionRecall]:
    """The curves of all labels of the last recorded pass that have positives and negatives, for `RunRecord.memo`."""
    found = record.memo(label_scores)
    if found is None:
        return []
    step, pairs = found
    labels = ((i, scores_of(pairs, i)) for i in range(pairs.shape[1]))
    return [curve_of(*some, label=i, step=step) for i, some in labels if some is not None]


def curve_of(scores: Array, targets: Array, *, label: int = 0, step: int = 0) -> PrecisionRecall:
    """The curve of logits and targets (0 or 1), both of shape (n,)."""
    order = np.argsort(-scores, kind="stable")
    scores, targets = scores[order], targets[order] > 0.5
    ends = np.append(np.flatnonzero(np.diff(scores)) + 1, len(scores))
    edges = np.concatenate([[scores[0] + 2], scores[ends - 1], [scores[-1] - 2]])
    return PrecisionRecall(label, step, scores, targets, np.append(0, ends), (edges[:-1] + edges[1:]) / 2)


def out_of_bag(curve: PrecisionRecall) -> Gain:
    """Choose the threshold on samples drawn with replacement, score it on those that were not drawn.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 17. A curve's highest point is selected
    from many: on the samples that it was chosen on it is too good, even where no threshold is better than another.
    """
    rng, n = np.random.default_rng(0), len(curve.scores)
    drawn = []
    for _ in range(REPLICATES):
        weights = np.bincount(rng.integers(0, n, n), minlength=n)
        chosen = int(_weighted_f1(curve, weights).argmax())
        outside = _weighted_f1(curve, weights == 0)
        drawn.append((outside[chosen], max(outside[curve.half], outside[-1])))
    f1, before = np.array(drawn).T
    gain = f1 - before
    return Gain(float(f1.mean()), float(before.mean()), float(gain.mean()), float(SHRINK * gain.std()))


def _weighted_f1(curve: PrecisionRecall, weights: Array) -> Array:
    """F1 at each threshold where samples count this much, shape (m,)."""
    named, found = (np.append(0, np.cumsum(w))[curve.ends] for w in (weights, weights * curve.targets))
    return _f1(found, named, found[-1])


def _f1(found: Array, named: Array, positives: float) -> Array:
    return np.asarray(2 * found / np.maximum(named + positives, 1))
