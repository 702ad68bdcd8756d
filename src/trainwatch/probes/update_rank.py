"""The rank of what training added to a weight: above the noise, and by energy (§11)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

ENERGIES = (0.90, 0.95, 0.99)
ROUNDING = 1e-9
WORK = 2e10  # multiplications for all updates: some two seconds on one core

Values = NDArray[np.float64]
Factors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # U (rows, k), singular values (k,), V' (k, columns)


def matrix_of(weight: torch.Tensor) -> torch.Tensor:
    """A weight as a matrix (rows, columns): a convolution has a row for each channel that it gives."""
    return weight.reshape(len(weight), -1)


def factors_of(matrices: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, Factors]]:
    """Singular value decompositions, the cheapest first as far as `WORK` goes; none of what is not finite."""
    cost = {name: 20.0 * min(m.shape) ** 2 * max(m.shape) for name, m in matrices.items()}
    spent = 0.0
    for name in sorted(cost, key=lambda n: (cost[n], n)):
        spent += cost[name]
        if spent > WORK:
            return
        matrix = matrices[name].float()
        if bool(torch.isfinite(matrix).all()):
            left, values, right = torch.linalg.svd(matrix, full_matrices=False)
            yield name, (left, values, right)


def rank_that_keeps(singular_values: Values, share: float) -> int:
    """How many of the largest singular values keep a share of the sum of squares; 0 where it is nothing."""
    energy = np.cumsum(singular_values**2)
    return int(np.searchsorted(energy / energy[-1], share - ROUNDING)) + 1 if energy[-1] else 0


def rank_above_noise(singular_values: Values, shape: tuple[int, int]) -> int:
    """How many singular values of a matrix of this shape stand above the edge of its noise.

    Gavish and Donoho, "The optimal hard threshold for singular values is 4 / sqrt(3)" (2014), for noise of unknown
    size: the median singular value times a factor that depends on the ratio of the sides alone; their polynomial for
    it is good to 0.02.
    """
    beta = min(shape) / max(shape)
    edge = np.median(singular_values) * (0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43)
    rounding = np.finfo(np.float32).eps * max(shape) * singular_values[0]
    return int((singular_values > max(edge, rounding)).sum())
