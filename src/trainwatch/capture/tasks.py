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


LABELS = ("binary", "multilabel")


def read_by_shape(call: LossCall, task: str | None) -> LossCall:
    """A loss that is none of torch's, with the meaning that shapes and types of what it was given tell.

    Args:
        call: The loss; it is changed in place.
        task: The task of the run, where known: targets that are no integers may be anything else than labels.
    """
    predictions, target = call.input, call.target
    if call.known or call.meaning or predictions is None or target is None:
        return call
    whole = not target.is_floating_point()
    if whole and predictions.ndim == target.ndim + 1 and predictions.shape[1:2] != (1,):
        call.meaning = "cross_entropy"
    elif (whole or task in LABELS) and predictions.numel() == target.numel() and predictions.is_floating_point():
        call.meaning = "binary_cross_entropy_with_logits"
        call.input = predictions.reshape(target.shape)
    return call


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
