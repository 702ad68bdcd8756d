"""Tensors of which each process holds a part: `DTensor`, as FSDP (`fully_shard`) and tensor parallelism make them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds; of a plain one the tensor itself. No process waits for another."""
    part = getattr(tensor, "_local_tensor", None)
    return part if isinstance(part, torch.Tensor) else tensor


def is_shard(tensor: torch.Tensor) -> bool:
    """Whether other processes hold further parts of a tensor, or copies of this one, and torch knows of it."""
    return local(tensor) is not tensor


def is_unreduced(tensor: torch.Tensor) -> bool:
    """Whether each process holds a summand of a tensor: no norm of it is known without adding them up."""
    return any(p.is_partial() for p in getattr(tensor, "placements", ()))


def flattened(models: Mapping[str, nn.Module]) -> str:
    """Why gradients cannot be told apart: FSDP1 keeps a part of all parameters of a module in one flat tensor."""
    names = {type(module).__name__ for model in models.values() for module in model.modules()}
    if "FullyShardedDataParallel" not in names:
        return ""
    return "FullyShardedDataParallel cuts parameters across one another: use torch.distributed.fsdp.fully_shard"


def share_facts(tensor: torch.Tensor) -> dict[str, int]:
    """Of a sharded tensor: ``held``, its entries in this process, and ``copies``, how many processes hold the same."""
    if not is_shard(tensor):
        return {}
    sharded: Any = tensor
    sizes = [sharded.device_mesh.size(i) for i, p in enumerate(sharded.placements) if p.is_shard()]
    return {"held": local(tensor).numel(), "copies": torch.distributed.get_world_size() // math.prod(sizes)}
