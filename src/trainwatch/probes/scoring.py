"""Scores the predictions of other predictors by the criterion of the run, as the net itself is scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainwatch.probes.bench import Bench
from trainwatch.probes.evaluated import MANY
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.predictors import Array
from trainwatch.probes.tables import MOST_CLASSES, OVER_CLASSES, OVER_TWO, rows_of

DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
SCORED = (*OVER_CLASSES, *OVER_TWO, *DISTANCES)


def scorable(bench: Bench, kind: str) -> Sequence[Any]:
    """Held batches whose criterion other predictors can be scored by.

    Raises:
        CannotIsolate: There are none of this sort.
    """
    batches: Sequence[Any] = bench.batches(kind, MANY)
    for batch in batches:
        rows_of(batch)
        function = getattr(batch, "function", "a loss of the trainer's own")
        if function not in SCORED:
            raise CannotIsolate(f"other predictors are not scored by {function}")
    return batches


def classes_in(function: str, y: Array, outputs: Sequence[torch.Tensor]) -> int | None:
    """How many classes there are to predict; None where it is a number.

    Raises:
        CannotIsolate: They are too many, or the targets are not classes.
    """
    if function in DISTANCES:
        return None
    width = outputs[0].shape[-1] if function in OVER_CLASSES else 2
    whole = np.isin(y, np.arange(min(width, MOST_CLASSES)))
    if width > MOST_CLASSES or not whole.all() or len(np.unique(y)) < 2:
        raise CannotIsolate(f"other predictors need 2 to {MOST_CLASSES} classes, each sample of one of them")
    return int(width)


def in_form_of(function: str, answers: Array, like: torch.Tensor) -> torch.Tensor:
    """Numbers, shape (n,), or probabilities, shape (n, classes), in the form of what the net gives to its loss."""
    found = torch.as_tensor(answers, dtype=like.dtype, device=like.device)
    if function in OVER_CLASSES:
        found = found.log()
    elif function in OVER_TWO:
        found = found[:, 1] if function == "binary_cross_entropy" else found[:, 1].logit()
    return found.reshape(like.shape)


def scores(batches: Sequence[Any], outputs: Sequence[torch.Tensor]) -> Array:
    """Loss of each sample, shape (n,).

    Raises:
        CannotIsolate: The loss has no parts.
    """
    parts = [batch.losses_of(given)[1] for batch, given in zip(batches, outputs, strict=True)]
    if any(part is None for part in parts):
        raise CannotIsolate("the loss of single samples cannot be had")
    return torch.cat([part.float() for part in parts]).cpu().numpy().astype(np.float64)
