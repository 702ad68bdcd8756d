"""What is to be learned, as far as the targets tell."""

from __future__ import annotations

import numpy as np

from trainwatch.auditing.samples import Samples

MOST_FLOAT_CLASSES = 20  # numbers with a point that are whole and this few are classes
SAMPLES_A_CLASS = 4  # whole numbers that recur less often are quantities


def task_of(samples: Samples, told: str | None) -> str | None:
    """The task, in the words of the fact ``task``; None where there are no targets.

    Args:
        samples: The training part.
        told: By the user; then it is that.
    """
    targets = samples.targets
    if told is not None or targets is None or not len(targets):
        return told
    if targets.ndim > 1 and targets.shape[1] > 1:
        return "multilabel" if np.isin(targets, (0, 1)).all() else "regression"
    flat = targets.reshape(-1)
    known = flat[np.isfinite(flat)] if flat.dtype.kind == "f" else flat
    values = np.unique(known)
    few = len(values) <= max(2, len(flat) // SAMPLES_A_CLASS) or bool(samples.class_names)
    whole = bool((values == np.round(values)).all()) and (not len(values) or values[0] >= 0)
    if not few or not whole or (flat.dtype.kind == "f" and len(values) > MOST_FLOAT_CLASSES):
        return "regression"
    return "binary" if len(values) and values[-1] <= 1 else "multiclass"
