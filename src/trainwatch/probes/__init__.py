"""Experiments on a copy of the live model, now and then, on held batches and within the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainwatch.probes.hessian import HessianExtremes as HessianExtremes
    from trainwatch.probes.hessian import hessian_extremes as hessian_extremes

__all__ = ["HessianExtremes", "hessian_extremes"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trainwatch.probes import hessian

    return getattr(hessian, name)
