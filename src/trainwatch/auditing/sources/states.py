"""Reading draws random numbers: shuffled orders, transforms. Afterwards nobody can tell."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from trainwatch.probes.isolation import Source, state_of, untouched

DEEP = 4  # from a loader to its sampler or its dataset, to what that wraps and to a transform
MOST = 64  # things looked at on each level


@contextmanager
def as_before(source: Any) -> Iterator[None]:
    """Within, random numbers may be drawn; afterwards the states of Python, NumPy, torch and of `source` are as before.

    Args:
        source: A loader, dataset, data module or anything else whose attributes may hold generators.
    """
    kept = [state_of(generator) for generator in generators_in(source)]
    device = torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
    try:
        with untouched(device):
            yield
    finally:
        for restore in kept:
            restore()


def generators_in(source: Any, deep: int = DEEP) -> list[Source]:
    """Generators of random numbers among the attributes of an object and of what it holds."""
    found: dict[int, Source] = {}
    level = [source]
    for _ in range(deep + 1):
        found |= {id(part): part for part in level if isinstance(part, Source)}
        level = [inner for part in level for inner in _within(part)][:MOST]
    return list(found.values())


def _within(part: Any) -> list[Any]:
    if isinstance(part, (list, tuple)):
        return list(part[:MOST])
    if isinstance(part, dict):
        return list(part.values())[:MOST]
    plain = (torch.Tensor, np.ndarray, random.Random, type)
    return [] if isinstance(part, plain) or not hasattr(part, "__dict__") else list(vars(part).values())[:MOST]
