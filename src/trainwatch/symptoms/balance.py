"""What a run does already about uneven classes: weights in the loss, a sampler that draws rare ones more often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.curves import Array

LOGITS = ("cross_entropy", "nll_loss")  # criteria that take a logit, or its logarithm of a probability, for each class


def weights_in_use(record: RunRecord) -> bool:
    """A loss was given weights per class, or of positives."""
    return any(True for _ in _given(record))


def adjustment_in_use(record: RunRecord) -> bool:
    """A constant is added to the logits of classes in training, as to adjust them to the shares of the classes."""
    losses = record.facts.get("loss", {}).values()
    return any(loss.get("function") in LOGITS and loss.get("shifted") for loss in losses)


def sampler_in_use(record: RunRecord) -> bool:
    """Training samples are drawn by weight."""
    loader = record.facts.get("loaders", {}).get("train") or {}
    return "Weighted" in str(loader.get("sampler", ""))


def positive_weights(record: RunRecord, labels: int) -> tuple[str, Array] | None:
    """How much a positive counts beside a negative, where the loss weights them and the numbers could be read.

    Args:
        record: The run.
        labels: How many yes / no labels there are.

    Returns:
        The argument that holds the weights, and one number a label; None where there is none.
    """
    for name, value in _given(record):
        if isinstance(value, str):  # a tensor that was not read
            continue
        numbers = np.asarray(value, float).reshape(-1)
        if name == "weight" and len(numbers) == 2 and labels == 1:
            return name, numbers[1:] / numbers[:1]
        if name == "pos_weight" and len(numbers) in (1, labels):
            return name, np.broadcast_to(numbers, labels)
    return None


def _given(record: RunRecord) -> Iterator[tuple[str, Any]]:
    for loss in record.facts.get("loss", {}).values():
        for name in ("weight", "pos_weight"):
            if (value := (loss.get("arguments") or {}).get(name)) is not None:
                yield name, value
