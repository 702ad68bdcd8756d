"""Tensors of which each process holds a part: `DTensor`, as FSDP (`fully_shard`) and tensor parallelism make them."""

from __future__ import annotations

import torch


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds; of a plain one the tensor itself. No process waits for another."""
    part = getattr(tensor, "_local_tensor", None)
    return part if isinstance(part, torch.Tensor) else tensor


def is_shard(tensor: torch.Tensor) -> bool:
    """Whether other processes hold further parts of a tensor, or copies of this one, and torch knows of it."""
    return local(tensor) is not tensor
