"""The loss over a plane through the model's place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from trainwatch.probes.curvature import Hessian, Loss
from trainwatch.probes.isolation import untouched
from trainwatch.record.series import Array

PLACES = 9  # along each axis
STEPS = 100  # training steps that it is worth: 81 forward passes of each of up to 4 batches


def losses_at(hessian: Hessian, losses: Sequence[Loss], vector: torch.Tensor, length: float = 1.0) -> Array:
    """Each loss where the parameters are moved along a flat vector, shape (b,); they are put back."""
    with hessian.moved(vector, length), untouched(hessian.device), torch.no_grad():
        found: Array = torch.stack([loss().detach().reshape(()) for loss in losses]).cpu().double().numpy()
    return found


def loss_plane(
    hessian: Hessian, losses: Sequence[Loss], x: torch.Tensor, y: torch.Tensor, x_reach: float, y_reach: float
) -> Array:
    """Mean loss on a grid round the model's place.

    Args:
        hessian: Moves its parameters, in place, and puts them back.
        losses: Of the parameters, without arguments.
        x: Flat unit vector along the first axis.
        y: The same of the second.
        x_reach: How far the grid reaches along `x`, to either side.
        y_reach: The same along `y`.

    Returns:
        Shape (10, 10): places along `x` in the first row, along `y` in the first column, NaN where these meet, losses
        in the rest; infinity where one is not finite.
    """
    table = np.full((PLACES + 1, PLACES + 1), np.nan)
    table[0, 1:] = np.linspace(-x_reach, x_reach, PLACES)
    table[1:, 0] = np.linspace(-y_reach, y_reach, PLACES)
    for row in table[1:]:
        for j, place in enumerate(table[0, 1:], 1):
            mean = losses_at(hessian, losses, float(place) * x + float(row[0]) * y).mean()
            row[j] = mean if np.isfinite(mean) else np.inf
    return table
