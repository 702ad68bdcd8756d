"""A step off a saddle, on the live weights: the one thing that trainwatch changes, and only where it is asked to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from trainwatch.probes.isolation import unwrapped


@dataclass(frozen=True)
class Escaped:
    """What `trainwatch.escape` did.

    Attributes:
        moved: Whether the weights were moved.
        length: How far, in the units of the weights; 0 where they were not.
        drop: By how much the loss fell on held batches that the direction was not taken from.
        drop_error: Its standard error over those batches.
        reason: Why nothing was done, otherwise empty.
    """

    moved: bool
    length: float = 0.0
    drop: float = 0.0
    drop_error: float = 0.0
    reason: str = ""


def move(model: nn.Module, direction: Mapping[str, torch.Tensor], length: float) -> None:
    """Move a model's parameters in place, tied ones once.

    Args:
        model: The live model, in a wrapper or not.
        direction: Parameter -> its part of a unit vector, as the probe names them.
        length: How far.
    """
    named = dict(unwrapped(model).named_parameters())
    with torch.no_grad():
        for name, part in direction.items():
            named[name].add_(part.to(named[name]), alpha=length)


def shared_by_processes() -> bool:
    """Whether other processes hold the same weights: each would take another direction."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
