"""How much the hidden units of a layer say the same: the mean absolute correlation between them (§6)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from trainwatch.probes.bench import Batch

MOST_SITES = 64
MOST_UNITS = 256  # of a layer, at even distances
MOST_ROWS = 512  # of a batch, samples times positions, at even distances
CONSTANT = 1e-6  # of the widest unit's spread: what spreads less never changes

Seen = dict[str, list[torch.Tensor]]


def correlations(
    model: nn.Module, dropout: Collection[str], batches: Sequence[Batch]
) -> dict[str, tuple[float, int, int]]:
    """Correlate the hidden units that dropouts are given or, where there is none, dense layers and convolutions.

    What comes before the first weight is no hidden unit, so a dropout of the inputs does not count.

    Args:
        model: In evaluation mode.
        dropout: Names of the modules that drop.
        batches: To be run through it.

    Returns:
        Name of the module -> (mean absolute correlation between units, over samples and positions; units that change
        at all; samples), of modules that are given at least two such units.
    """
    modules = dict(model.named_modules())
    dropping = {name: m for name, m in modules.items() if name in dropout and isinstance(m, _DropoutNd)}
    sites: dict[str, nn.Module] = {**dropping} or {
        name: m for name, m in modules.items() if isinstance(m, (nn.Linear, _ConvNd))
    }
    seen: Seen = {}
    for batch in batches:
        with _heard(model, dict(list(sites.items())[:MOST_SITES]), seen):
            batch.predict(model)
    samples = sum(batch.samples for batch in batches)
    found = {name: _correlation(parts) for name, parts in seen.items()}
    return {name: (*both, samples) for name, both in found.items() if both is not None}


@contextmanager
def _heard(model: nn.Module, sites: dict[str, nn.Module], seen: Seen) -> Iterator[None]:
    """Within one pass, keep what the sites are given behind the first weight: rows of units."""
    begun: list[nn.Module] = []

    def enter(name: str, module: nn.Module, x: torch.Tensor) -> None:
        if begun and isinstance(x, torch.Tensor) and x.ndim > 1 and x.is_floating_point():
            seen.setdefault(name, []).append(_rows(module, x.detach()))

    handles = []
    for name, site in sites.items():
        handles.append(site.register_forward_pre_hook(lambda m, args, name=name: enter(name, m, *args[:1])))
    for module in model.modules():
        if any(p.ndim > 1 for p in module.parameters(recurse=False)):
            handles.append(module.register_forward_hook(lambda m, *_: begun.append(m)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Units as columns, shape (samples x positions, units), at most so many of each."""
    images = x.ndim > 3 and not isinstance(module, nn.Linear)
    axis = 1 if images or isinstance(module, (_ConvNd, nn.Dropout1d)) else -1
    rows = x.movedim(axis, -1).reshape(-1, x.shape[axis])
    some = slice(None, None, max(1, -(-rows.shape[1] // MOST_UNITS)))
    return rows[:: max(1, -(-len(rows) // MOST_ROWS)), some].float()


def _correlation(parts: list[torch.Tensor]) -> tuple[float, int] | None:
    """Mean absolute correlation between the columns that change, and their number; None where no two do."""
    if len({part.shape[1] for part in parts}) > 1:
        return None  # of another width each time
    x = torch.cat(parts)
    x = x - x.mean(0)
    norms = x.norm(dim=0)
    alive = norms > CONSTANT * norms.max()
    count = int(alive.sum())
    if count < 2 or not bool(norms.isfinite().all()):
        return None
    unit = x[:, alive] / norms[alive]
    away = (unit.T @ unit).abs().sum() - count
    return float(away) / (count * (count - 1)), count
