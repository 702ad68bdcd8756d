"""Experiments on a copy of the live model, now and then, on held batches and within the budget."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainwatch.probes.hessian import HessianExtremes as HessianExtremes
    from trainwatch.probes.hessian import hessian_extremes as hessian_extremes
    from trainwatch.probes.proximal_path import PathPoint as PathPoint
    from trainwatch.probes.proximal_path import sparsity_path as sparsity_path

_HOMES = {
    "HessianExtremes": "hessian",
    "hessian_extremes": "hessian",
    "PathPoint": "proximal_path",
    "sparsity_path": "proximal_path",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
