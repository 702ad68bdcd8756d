"""How well rare classes and labels are found, beside the numbers that the user looks at."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.classes import average_precision, class_names, confusions, label_scores, scores_of
from trainwatch.symptoms.curves import Array

ACCURACY = re.compile(r"(^|[^a-z])(acc|accuracy)([^a-z]|$)")
# Numbers that fall where a rare class is missed. A balanced accuracy is one of them, and no accuracy.
FAIR = re.compile(
    r"f1|f_?beta|auc|auroc|recall|sensitivity|specificity|precision|balanced|mcc|matthews|kappa|jaccard|iou|dice"
    r"|(^|[^a-z])(m?ap|bacc|uar|tpr|tnr|fnr)([^a-z]|$)"
)
TRAIN = re.compile(r"train")


@dataclass(frozen=True)
class Recognition:
    """One validation pass: what is found of each class, or of each yes / no label, at a threshold of 0.5.

    Attributes:
        step: Optimiser step of the pass.
        names: Of the classes or labels.
        hits, totals: Samples that are found, and samples, of each, shape (K,).
        others: Samples that are something else, the largest class alone or all that lack the label, shape (K,).
        accuracy: Share of right answers.
        constant: Accuracy of always giving the same answer.
        balanced, macro_f1, mcc: Balanced accuracy, macro-F1 and Matthews' correlation; means over the labels.
        pr_auc: Area under the precision-recall curve, mean over the labels; None for several classes.
    """

    step: int
    names: tuple[str, ...]
    hits: Array
    totals: Array
    others: Array
    accuracy: float
    constant: float
    balanced: float
    macro_f1: float
    mcc: float
    pr_auc: float | None


@dataclass(frozen=True)
class Reported:
    """Metrics of validation that the user computes, by name: the last values of accuracies, and those that are fair."""

    accuracies: dict[str, float]
    fair: tuple[str, ...]


def recognitions(record: RunRecord) -> list[Recognition]:
    """The passes of the primary stream, oldest first, for `RunRecord.memo`; of several labels the last one alone."""
    tables = record.memo(confusions)
    if tables:
        scores = record.memo(label_scores)
        pairs = None if scores is None else scores_of(scores[1], 0)
        area = None if pairs is None else average_precision(*pairs)
        names = class_names(record, len(tables[0].totals))
        return [
            Recognition(
                t.step, names, t.hits, t.totals, np.full(len(names), t.totals.max()),
                t.accuracy, t.majority_rate, t.balanced_accuracy, t.macro_f1, t.mcc, area,
            )
            for t in tables
        ]  # fmt: skip
    found = record.memo(label_scores)
    return [] if found is None else _of_labels(record, *found)


def reported(record: RunRecord) -> Reported:
    """What the user or the trainer logs at the end of epochs, for `RunRecord.memo`; training metrics are left out."""
    names = [name for name in record.keys("metric") if not TRAIN.search(name.lower())]
    fair = tuple(name for name in names if FAIR.search(name.lower()))
    last = {name: record.latest("metric", name) for name in names if name not in fair and ACCURACY.search(name.lower())}
    values = {name: float(row[1]) for name, row in last.items() if row is not None and np.isfinite(row[1])}
    return Reported({name: v / 100 if v > 1 else v for name, v in values.items()}, fair)


def _of_labels(record: RunRecord, step: int, pairs: Array) -> list[Recognition]:
    """One pass, or none where no label is said yes or no to, as of pixels between 0 and 1."""
    labels = pairs.shape[1]
    tables, areas = np.full((labels, 2, 2), np.nan), np.full(labels, np.nan)
    for i in range(labels):
        if (some := scores_of(pairs, i)) is not None:
            scores, targets = some
            tables[i] = np.bincount((2 * targets + (scores > 0)).astype(int), minlength=4).reshape(2, 2)
            areas[i] = average_precision(scores, targets)
    (tn, fp), (fn, tp) = np.moveaxis(tables, 0, -1)
    samples = tn + fp + fn + tp
    if not (samples > 0).any():
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        mcc = np.where(scale > 0, (tp * tn - fp * fn) / scale, 0.0)
        measures = (
            (tp + tn).sum(where=samples > 0) / np.nansum(samples),
            np.nansum(np.maximum(tp + fn, tn + fp)) / np.nansum(samples),
            np.nanmean((tp / (tp + fn) + tn / (tn + fp)) / 2),
            np.nanmean(2 * tp / (2 * tp + fp + fn)),
            mcc[samples > 0].mean(),
            np.nanmean(areas),
        )
    names = class_names(record, labels)
    return [Recognition(step, names, *(np.nan_to_num(v) for v in (tp, tp + fn, tn + fp)), *map(float, measures))]
