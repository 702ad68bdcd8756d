"""The charts of classes and thresholds, drawn from a record alone."""

from __future__ import annotations

import math

import numpy as np

from trainwatch.figures import Curve, Figure, Profile
from trainwatch.record import RunRecord
from trainwatch.symptoms.classes import class_names, label_scores
from trainwatch.symptoms.curves import passes, primary_stream, thin
from trainwatch.symptoms.thresholds import PrecisionRecall, precision_recall

POINTS = 60  # of a precision-recall curve
LINES = 8  # classes whose recall is drawn: those that are found least
NO_ERROR = math.nan


def class_pictures_of(record: RunRecord) -> dict[str, Figure]:
    """Chart data on classes.

    Returns:
        ``recall`` (of each class in each validation pass) and ``precision_recall`` (of the last recorded pass, with
        the thresholds 0.5 and best; of several labels that which gains most), as far as they were recorded.
    """
    figures: dict[str, Figure | None] = {"recall": _recalls(record), "precision_recall": _precision_recall(record)}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _recalls(record: RunRecord) -> Curve | None:
    stream = primary_stream(record)
    steps, tables = passes(record, "val_confusion", stream) if stream else (np.zeros(0), np.zeros(0))
    if len(steps) < 2:
        return None
    hits, totals = np.diagonal(tables, axis1=1, axis2=2), tables.sum(2)
    recalls = np.divide(hits, totals, out=np.full(hits.shape, np.nan), where=totals > 0)
    seen = np.flatnonzero(np.isfinite(recalls[-1]))
    shown = sorted(seen[np.argsort(recalls[-1][seen], kind="stable")][:LINES].tolist())
    if not shown:
        return None
    names = class_names(record, recalls.shape[1])
    left_out = f" ({len(shown)} of {len(seen)}, those found least)" if len(seen) > len(shown) else ""
    lines = {f"class {names[i]}": thin(steps, recalls[:, i]) for i in shown}
    return Curve(title=f"Recall of each class in validation{left_out}", y_label="recall", lines=lines, marks={})


def _precision_recall(record: RunRecord) -> Profile | None:
    curves, scores = record.memo(precision_recall), record.memo(label_scores)
    if not curves or scores is None:
        return None
    labels = scores[1].shape[1]
    curve = max(curves, key=lambda c: c.f1[c.best] - c.f1[c.half])
    name = class_names(record, 2)[1] if labels == 1 else class_names(record, labels)[curve.label]
    return Profile(
        title=f"Precision and recall of {name} at every threshold, step {curve.step}",
        x_label="recall",
        y_label="precision",
        lines={
            "precision": tuple(_point(curve, int(i)) for i in _spread(curve)),
            f"0.5: F1 {curve.f1[curve.half]:.3f}": (_point(curve, curve.half),),
            f"{curve.probability(curve.best):.3g}: F1 {curve.f1[curve.best]:.3f}": (_point(curve, curve.best),),
        },
        marks={},
    )


def _point(curve: PrecisionRecall, index: int) -> tuple[float, float, float]:
    return float(curve.recall[index]), float(curve.precision[index]), NO_ERROR


def _spread(curve: PrecisionRecall) -> list[int]:
    """Thresholds evenly spread over the recall; the highest one names nothing and has no precision."""
    places = np.searchsorted(curve.recall, np.linspace(0, 1, POINTS))
    return sorted({max(1, int(i)) for i in places})
