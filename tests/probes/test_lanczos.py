"""Lanczos on matrices whose eigenvalues are known."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainwatch.probes.lanczos import Asymmetric, _orthogonalise, lanczos

N = 60


def matrix(seed=0, values=None):
    """A symmetric matrix with the given eigenvalues, in a random basis."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(N, generator=generator, dtype=torch.float64) if values is None else values
    turn, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    return turn @ torch.diag(values) @ turn.T


def run(
    a, *, smallest=2, largest=2, tolerance=1e-6, most_vectors=N, most_products=1000, dtype=torch.float64, stop=None
):
    a = a.to(dtype)
    seen = []

    def product(vector, out):
        seen.append(vector if vector._base is None else vector._base)
        torch.mv(a, vector, out=out)

    start = torch.randn(len(a), generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    found = lanczos(
        product,
        start,
        stop or (lambda ritz: ritz.converged(smallest, largest, tolerance)),
        smallest=smallest,
        largest=largest,
        most_vectors=most_vectors,
        most_products=most_products,
        rounding=32 * torch.finfo(dtype).eps,
    )
    return *found, seen


def assert_ends(a, found, low, high, k=2):
    truth = torch.linalg.eigvalsh(a)
    for values, bounds, true in (
        (found.values[:k], found.bounds[:k], truth[:k]),
        (found.values[-k:], found.bounds[-k:], truth[-k:]),
    ):
        assert ((values - true).abs() <= bounds).all()
        assert (bounds <= 1e-3 * found.radius).all()
    both = torch.cat([low, high.flip(0)]).double()
    torch.testing.assert_close(both @ both.T, torch.eye(2 * k, dtype=torch.float64), atol=1e-4, rtol=0)
    values = torch.cat([found.values[:k], found.values[-k:]])
    away = (both @ a - values[:, None] * both).norm(dim=1)  # the residuals themselves
    assert (away <= 1.01 * torch.cat([found.bounds[:k], found.bounds[-k:]])).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(3))
def test_the_ends_are_those_of_the_matrix_within_their_bounds(seed, dtype):
    a = matrix(seed)
    found, low, high, _ = run(a, tolerance=1e-4, dtype=dtype)
    assert found.products < N
    assert_ends(a, found, low, high)


@pytest.mark.parametrize("most", [6, 7, 10, 20])
def test_a_bounded_basis_is_never_exceeded_and_gets_there_too(most):
    a = matrix(3)
    found, low, high, seen = run(a, tolerance=1e-4, most_vectors=most)
    assert {tuple(basis.shape) for basis in seen} == {(most + 1, N)}  # and a row to work in
    assert found.products > most
    assert_ends(a, found, low, high)


@pytest.mark.parametrize("top", [1e3, 1e4])
def test_no_eigenvalue_comes_twice_for_rounding(top):
    """Without reorthogonalisation, a dominant eigenvalue returns as a ghost: the classic failure in float32."""
    values = torch.cat([torch.linspace(-1, 1, N - 1, dtype=torch.float64), torch.tensor([top], dtype=torch.float64)])
    found, low, high, _ = run(matrix(0, values), dtype=torch.float32, stop=lambda ritz: False)
    assert found.products == N
    assert (found.values > top / 2).sum() == 1
    both = torch.cat([low, high])
    torch.testing.assert_close(both @ both.T, torch.eye(4), atol=1e-5, rtol=0)
    assert found.values[0] == pytest.approx(-1, abs=1e-5 * top)


def test_a_ritz_value_is_never_beyond_the_end():
    a, lowest = matrix(4), []
    run(a, stop=lambda ritz: bool(lowest.append([round(float(v), 9) for v in ritz.values[[0, -1]]])))
    truth = torch.linalg.eigvalsh(a)
    assert all(low >= truth[0] - 1e-8 and high <= truth[-1] + 1e-8 for low, high in lowest)
    assert lowest == sorted(lowest, key=lambda pair: (-pair[0], pair[1]))  # and only comes nearer


def test_it_ends_as_soon_as_the_question_is_answered():
    a = matrix(5)
    sign, _, _, _ = run(a, stop=lambda ritz: float(ritz.values[0]) < 0)
    value, _, _, _ = run(a)
    assert sign.products < 4 < value.products
    assert float(sign.values[0]) < 0
    capped, _, _, _ = run(a, most_products=5)
    assert capped.products == 5
    assert not capped.converged(2, 2, 1e-6)


def test_a_space_that_is_not_left_is_complete():
    found, low, _, _ = run(torch.eye(N, dtype=torch.float64), smallest=1, largest=1)
    assert found.products == 2  # the first shows the only eigenvalue, the second a copy of it
    assert found.values.tolist() == pytest.approx([1.0, 1.0])
    assert low.norm() == pytest.approx(1.0)
    zero, _, _, _ = run(torch.zeros(N, N, dtype=torch.float64))
    assert zero.values.tolist() == [0.0] * 4
    assert zero.complete


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_small_matrix_is_taken_whole(n):
    values = torch.arange(n, dtype=torch.float64) - 1
    found, low, high, _ = run(torch.diag(values), smallest=1, largest=1)
    assert found.products == n
    assert found.values.tolist() == values.tolist()
    assert low.abs().tolist() == [[1.0, *[0.0] * (n - 1)]]
    assert high.abs().tolist() == [[*[0.0] * (n - 1), 1.0]]


def test_what_is_not_symmetric_or_not_finite_is_refused():
    for n in (3, N):
        skewed = torch.eye(n, dtype=torch.float64)
        skewed[0] += 1.0
        with pytest.raises(Asymmetric):
            run(skewed, smallest=1, largest=1, stop=lambda ritz: False)
        with pytest.raises(FloatingPointError):
            run(torch.full((n, n), torch.nan, dtype=torch.float64), smallest=1, largest=1)


def test_restarts_of_a_symmetric_matrix_do_not_look_skewed():
    found, _, _, _ = run(matrix(6), most_vectors=7, tolerance=1e-9, dtype=torch.float32, most_products=200)
    assert found.products == 200


def test_too_few_vectors_are_refused():
    with pytest.raises(ValueError, match="4 eigenvalues take 6 vectors or more, 5 are allowed"):
        run(matrix(), most_vectors=5)


class Passages(TorchDispatchMode):
    """Takes down how many vectors are read to find the coordinates of another."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.mv.default and args[0].shape != (N, N):  # that is the operator
            self.rows.append(min(args[0].shape))
        return func(*args, **(kwargs or {}))


def test_a_product_is_held_against_the_whole_basis_once():
    a = torch.diag(torch.linspace(-1.0, 2.0, N, dtype=torch.float64))
    with Passages() as passages:
        run(a, stop=lambda ritz: ritz.products == 20)
    nearest = [min(n, 2) for n in range(1, 21)]
    assert sum(passages.rows) == sum(range(1, 21)) + sum(nearest)


def test_what_hardly_leaves_the_space_is_made_orthogonal_once_more():
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(200, 12, generator=generator, dtype=torch.float64))
    basis = basis.T.float().contiguous()
    rest = torch.randn(200, generator=generator)
    vector = 1e6 * basis[0] + rest
    coordinates, length = _orthogonalise(vector, basis)
    assert float((basis @ vector).abs().max()) < 1e-6 * length
    assert length == pytest.approx(float(vector.norm()), rel=1e-6)
    assert coordinates[0] == pytest.approx(1e6, rel=1e-5)
    assert coordinates[1:].abs().max() < 1.0 + float((basis @ rest).abs().max())
