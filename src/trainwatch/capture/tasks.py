"""What a run is trained to do, told from its loss and its predictions."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from trainwatch.capture.classes import OVER_CLASSES, PER_LABEL, labels_of
from trainwatch.capture.interception import LossCall

Task = Literal["binary", "multiclass", "multilabel", "regression", "language-model"]
TASKS: tuple[str, ...] = get_args(Task)
DISTANCES = {"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "gaussian_nll_loss", "poisson_nll_loss"}
VOCABULARY = 1000  # classes from which a classifier over token ids is taken for a language model


def task_of(call: LossCall, inputs: torch.Tensor | None) -> str | None:
    """The task that a loss call speaks of, or None.

    Args:
        call: A loss call.
        inputs: What the model was given, where seen.
    """
    if call.input is None:
        return None
    if call.sort in OVER_CLASSES:
        tokens = inputs is not None and not inputs.is_floating_point() and inputs.ndim == 2
        positions = call.input.numel() // max(1, call.input.shape[1 if call.input.ndim > 1 else 0])
        if (tokens and inputs is not None and positions == inputs.numel()) or call.input.shape[-1] >= VOCABULARY:
            return "language-model"
        return "multiclass"
    if call.sort in PER_LABEL:
        return "binary" if labels_of(call) == 1 else "multilabel"
    return "regression" if call.sort in DISTANCES else None
