import numpy as np
import pytest
import torch

from trainwatch.probes import update_rank
from trainwatch.probes.update_rank import factors_of, matrix_of, rank_above_noise, rank_that_keeps

SHAPES = [(64, 64), (40, 200), (200, 40)]


def noisy(shape, rank, noise, seed=0):
    """A matrix of some rank whose directions are all as long, and noise of a deviation."""
    draw = np.random.default_rng(seed)
    left, right = (np.linalg.qr(draw.standard_normal((side, rank)))[0] for side in shape)
    return 10 * left @ right.T + noise * draw.standard_normal(shape)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_directions_above_the_noise_are_counted_at_any_scale(scale, shape, seed):
    values = np.linalg.svd(scale * noisy(shape, 5, 0.1, seed), compute_uv=False)
    assert rank_above_noise(values, shape) == 5


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_alone_has_no_rank(shape):
    values = np.linalg.svd(np.random.default_rng(0).standard_normal(shape), compute_uv=False)
    assert rank_above_noise(values, shape) == 0


def test_the_factor_for_a_square_matrix_is_that_of_the_paper():
    values = np.array([2.87, 2.85, 1.0, 1.0, 1.0, 1.0, 1.0])  # 2.858 times the median
    assert rank_above_noise(values, (7, 7)) == 1


def test_energy():
    values = np.sqrt([90.0, 5.0, 4.0, 1.0])
    assert [rank_that_keeps(values, share) for share in (0.9, 0.95, 0.99, 1.0)] == [1, 2, 3, 4]
    assert rank_that_keeps(np.zeros(3), 0.9) == 0


def test_the_cheapest_come_first_and_what_is_not_finite_is_left_out(monkeypatch):
    matrices = {"wide": torch.ones(30, 40), "small": torch.ones(3, 4), "bad": torch.full((2, 2), torch.nan)}
    assert [name for name, _ in factors_of(matrices)] == ["small", "wide"]
    monkeypatch.setattr(update_rank, "WORK", 20.0 * (2**3 + 3**2 * 4))
    assert [name for name, _ in factors_of(matrices)] == ["small"]


def test_a_convolution_has_a_row_for_each_channel():
    assert matrix_of(torch.zeros(8, 3, 5, 5)).shape == (8, 75)
