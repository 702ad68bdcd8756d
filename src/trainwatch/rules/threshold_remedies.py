"""The remedies of a threshold that is not the best: move it or, where weights moved the scores, correct those."""

from __future__ import annotations

import numpy as np

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.balance import positive_weights, sampler_in_use, weights_in_use
from trainwatch.symptoms.classes import class_names
from trainwatch.symptoms.curves import Array, primary_stream
from trainwatch.symptoms.thresholds import PrecisionRecall, precision_recall

ENOUGH = 30  # positives from which on a threshold can be chosen
SCORES = {
    "binary_cross_entropy": "model(x)",
    "cross_entropy": "model(x).softmax(1)[:, 1]",
    "nll_loss": "model(x).exp()[:, 1]",
}
LOGITS = "torch.sigmoid(model(x))"


def label_names(record: RunRecord, labels: int) -> tuple[str, ...]:
    """Name of each yes / no label; of two classes that of the second."""
    return class_names(record, 2)[1:] if labels == 1 else class_names(record, labels)


def positive_rates(record: RunRecord, labels: int) -> Array | None:
    """Share of positives among the training targets, one number a label; None where they were not counted."""
    series = record.series("train_classes", "targets" if labels == 1 else "labels")
    if series is None or series.shape != (labels + (2 if labels == 1 else 1),):
        return None
    seen = np.nansum(series.history()[1].astype(float), axis=0)
    positives, samples = (seen[1:2], seen[:2].sum()) if labels == 1 else (seen[:-1], seen[-1])
    return positives / samples if samples else None


def threshold_remedy(record: RunRecord, labels: int, chosen: list[PrecisionRecall]) -> Remedy | None:
    """How to name the positives that a threshold of 0.5 misses, or not to name those that it names wrongly.

    Args:
        record: The run.
        labels: How many yes / no labels there are.
        chosen: The labels that gain from another threshold. None of them: by the share of positives in training.

    Returns:
        `move-threshold` or, where weights or a sampler have moved the scores already, `retune-weights`: both
        together would correct twice. None where there is neither a threshold nor a share to propose.
    """
    names = label_names(record, labels)
    if weights_in_use(record) or sampler_in_use(record):
        return _retuned(record, labels, chosen) if chosen else None
    rates = positive_rates(record, labels)
    values = np.full(labels, 0.5) if chosen or rates is None else rates.copy()
    for curve in chosen:
        values[curve.label] = curve.probability(curve.best)
    if not chosen and rates is None:
        return None
    told = [
        f"{names[c.label]}: F1 {c.f1[c.best]:.3f} at {c.probability(c.best):.3g}, {c.f1[c.half]:.3f} at 0.5"
        for c in chosen
    ]
    meant = [c.label for c in chosen] or list(range(labels))
    shares = "" if rates is None else ", ".join(f"{rates[i]:.3g}" for i in meant[:5])
    criterion = record.facts.get("validation", {}).get(primary_stream(record) or "", {}).get("criterion")
    return remedy(
        "move-threshold",
        positive=", ".join(names[i] for i in meant[:5]),
        threshold=", ".join(f"{values[i]:.3g}" for i in meant[:5]),
        measured=f"On the validation samples, {'; '.join(told[:5])}."
        if told
        else "The best on this run: not measured.",
        rate=f"{shares}, the share of positives in training," if shares else "The share of positives in training",
        value=f"{values[0]:.4g}" if labels == 1 else f"torch.tensor([{', '.join(f'{v:.4g}' for v in values)}])",
        score=SCORES.get(str(criterion), LOGITS),
    )


def measured_best(record: RunRecord) -> list[PrecisionRecall]:
    """The curve of a task with two classes, as a list; empty where it has too few positives or was not seen."""
    curves = record.memo(precision_recall)
    return [c for c in curves if len(curves) == 1 and c.label == 0 and c.positives >= ENOUGH]


def _retuned(record: RunRecord, labels: int, chosen: list[PrecisionRecall]) -> Remedy:
    """The weights that would bring the best thresholds to 0.5: a factor on the odds moves a logit by its logarithm."""
    names, known = label_names(record, labels), positive_weights(record, labels)
    factors = np.ones(labels)
    for curve in chosen:
        factors[curve.label] = np.exp(-curve.thresholds[curve.best])
    listed = [c.label for c in chosen[:5]]
    if known is None:
        what = "the sampler's weights" if sampler_in_use(record) else "the loss's weights"
        how = f"# multiply {what} of positives ({', '.join(names[i] for i in listed)}) by " + ", ".join(
            f"{factors[i]:.3g}" for i in listed
        )
        present = what
    else:
        argument, weights = known
        proposed = ", ".join(f"{w:.4g}" for w in weights * factors)
        literal = f"torch.tensor([{'1.0, ' if argument == 'weight' else ''}{proposed}])"
        loss = "CrossEntropyLoss" if argument == "weight" else "BCEWithLogitsLoss"
        how = f"criterion = torch.nn.{loss}({argument}={literal})"
        present = f"weights of {', '.join(f'{weights[i]:.3g}' for i in listed)}"
    return remedy(
        "retune-weights",
        positive=", ".join(names[i] for i in listed),
        factor=", ".join(f"{factors[i]:.3g}" for i in listed),
        present=present,
        best=", ".join(f"{c.probability(c.best):.3g}" for c in chosen[:5]),
        code=how,
    )
