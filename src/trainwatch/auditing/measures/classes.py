"""How often each class occurs, in a part and in its batches, and what is known of the parts as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainwatch.auditing.measures.look import STEP, Array, Cannot, Look, labels_of
from trainwatch.auditing.samples import Samples

QUANTITIES = ("train_classes", "val_classes", "batches_without_class")
SIZES = 4  # of batches that are told apart
MOST_CLASSES = 10_000


def measure(look: Look) -> None:
    """Count classes: `train_classes`, `val_classes`, `batches_without_class` and the facts ``run`` and ``loaders``."""
    record, train = look.record, look.train
    labels = {split: labels_of(part, look.task) for split, part in look.parts.items()}
    known = [some for some in labels.values() if some is not None]
    width = 1 + max((int(some.max()) for some in known), default=-1)
    names = look.train.class_names or (look.val.class_names if look.val is not None else ())
    record.set_fact("class_names", list(names) or None)
    # Of a subset the shares are known, not the counts of the whole.
    record.set_fact("run", {"train_samples": train.total or len(train), "finished": True})
    record.set_fact("loaders", {"train": _loader(train)})
    if not known or not 0 < width <= MOST_CLASSES:
        raise Cannot("there is not one class for each sample")
    for split, some in labels.items():
        if some is not None:
            record.append(f"{split}_classes", "targets", STEP, _counts(some, width))
    if labels["train"] is not None and train.batches is not None:
        for size, row in _lacking(labels["train"], train.batches, width).items():
            record.append("batches_without_class", str(size), STEP, row)


def _loader(train: Samples) -> dict[str, Any]:
    size = None if train.batches is None else int(np.median(np.unique(train.batches, return_counts=True)[1]))
    return {"samples": train.total or len(train), "shuffled": train.shuffled, "batch_size": size}


def _counts(labels: Array, width: int) -> Array:
    """Samples of each class, and of those without one, shape (K + 1,)."""
    return np.append(np.bincount(labels[labels >= 0], minlength=width), (labels < 0).sum())


def _lacking(labels: Array, batches: Array, width: int) -> dict[int, Array]:
    """Size of batches -> batches of that size without each class, and their number, shape (K + 1,)."""
    labelled = labels >= 0
    _, batch = np.unique(batches[labelled], return_inverse=True)
    holds = np.zeros((batch.max(initial=-1) + 1, width), bool)
    holds[batch, labels[labelled]] = True
    size, often = np.bincount(batch), np.bincount(np.bincount(batch))
    usual = np.argsort(-often, kind="stable")[:SIZES]
    return {
        int(s): np.append((~holds[size == s]).sum(0), often[s]) for s in sorted(usual.tolist()) if s > 0 and often[s]
    }
