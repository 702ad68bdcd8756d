"""How the numbers that are to be predicted lie in the batches of a loader."""

from __future__ import annotations

import numpy as np

from trainwatch.auditing.measures.look import STEP, Array, Cannot, Look

QUANTITIES = ("target_moments",)


def measure(look: Look) -> None:
    """Write `target_moments` of each training batch."""
    targets, batches = look.train.targets, look.train.batches
    if look.task != "regression" or targets is None or batches is None:
        raise Cannot("there are no batches of numbers")
    y = targets.reshape(len(targets), -1).astype(np.float64)
    finite = np.isfinite(y).all(1)
    for batch in np.unique(batches[finite]):
        look.record.append("target_moments", "train", STEP, _moments(y[finite & (batches == batch)]))


def _moments(y: Array) -> Array:
    """A row of `target_moments` of targets of shape (samples, numbers)."""
    own = (np.where(y > 0, y, 1.0) * np.log(np.where(y > 0, y, 1.0))).mean() if (y >= 0).all() else np.nan
    return np.array([y.mean(), y.var(), own, y.mean(1).var(), len(y)])
