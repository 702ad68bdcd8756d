"""Remedies for a loss that does not fit what it is given (TW703)."""

from __future__ import annotations

from collections.abc import Sequence

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.ranges import Range, range_of

READ = {"Softmax": "outputs.softmax(1)", "Sigmoid": "outputs.sigmoid()"}
MODULES = {"cross_entropy": "CrossEntropyLoss", "binary_cross_entropy_with_logits": "BCEWithLogitsLoss"}


def drop_activation(activation: str, function: str) -> tuple[Remedy, ...]:
    """For a loss that wants logits."""
    own = "outputs.softmax(1)" if function == "cross_entropy" else "outputs.sigmoid()"
    return (
        remedy("drop-last-activation", activation=activation.lower(), loss=MODULES[function],
               probabilities=READ.get(activation, own)),
    )  # fmt: skip


def log_probabilities(last: str) -> tuple[Remedy, ...]:
    """For a loss that wants logarithms of probabilities."""
    return (remedy("log-probabilities", given="probabilities" if last == "Softmax" else "raw outputs"),)


def same_shape(outputs: Sequence[int], targets: Sequence[int]) -> tuple[Remedy, ...]:
    """For outputs and targets that are broadcast."""
    longer = "outputs" if len(outputs) > len(targets) else "targets"
    return (remedy("same-shape", longer=longer, outputs=tuple(outputs), targets=tuple(targets)),)


def fit_range(last: str | None, targets: Range, binary: bool) -> tuple[Remedy, ...]:
    """For targets that the outputs cannot reach."""
    span = max(targets.most - targets.least, 1e-12)
    scale = remedy("targets-within-reach", least=f"{targets.least:.4g}", span=f"{span:.4g}")
    return (scale,) if binary else (remedy("unbounded-output", activation=str(last).lower()), scale)


def classify(record: RunRecord, stream: str) -> tuple[Remedy, ...]:
    """For classes that are not treated as such."""
    targets = range_of(record, "target_stats", stream)
    counts = record.series("train_classes", "targets")
    seen = 0
    if counts is not None and len(counts):
        seen = int((counts.history()[1].sum(0)[:-1] > 0).sum())
    classes = max(seen, int(targets.most) + 1 if targets is not None else 0, 2)
    return (remedy("one-unit-per-class", classes=classes),)
