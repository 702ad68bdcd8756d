"""Extreme eigenvalues of a symmetric operator by Lanczos: full reorthogonalisation, restarts, residual bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

SYMMETRIC = 1e-2  # of the largest entry: rounding makes some 1e-6, an operation taken for a constant more than 0.1
FEWEST = 2  # vectors of the basis beyond those that are wanted
NEAR = 2  # vectors that a product of the last one has a part in: itself and the one before
STABLE = 0.7  # what is left of a vector that is made orthogonal to rows it was orthogonal to but for rounding
MOST_TIMES = 3  # that a vector is made orthogonal; twice is enough (Giraud and others, 2005), once for the nearest rows
BLOCK = 1 << 16  # entries of a vector that a restart turns at a time


Product = Callable[[torch.Tensor, torch.Tensor], object]  # writes the product of its first argument into its second


class Asymmetric(ArithmeticError):
    """The operator is not symmetric."""


@dataclass(frozen=True)
class Ritz:
    """What is known of the spectrum after some products.

    Attributes:
        values: Ritz values, ascending, shape (j,). The least is never below the least eigenvalue, the greatest never
            above the greatest, but for rounding.
        bounds: Of each: an eigenvalue lies within so much of it, shape (j,). Residual norm plus rounding.
        products: Of the operator with a vector, so far.
        complete: The basis spans a subspace that the operator does not leave: all values are eigenvalues.
        vectors: Their coordinates in the basis, columns, shape (j, j).
    """

    values: torch.Tensor
    bounds: torch.Tensor
    products: int
    complete: bool
    vectors: torch.Tensor = field(repr=False)

    @property
    def radius(self) -> float:
        """The greatest absolute value."""
        return float(self.values.abs().max())

    def converged(self, smallest: int, largest: int, tolerance: float) -> bool:
        """So many at either end are known within `tolerance`, a share of the greatest absolute value."""
        wanted = torch.cat([self.bounds[:smallest], self.bounds[len(self.bounds) - largest :]])
        known = self.complete or bool((wanted <= tolerance * self.radius).all())
        return known and len(self.values) >= smallest + largest


def lanczos(
    product: Product,
    start: torch.Tensor,
    stop: Callable[[Ritz], bool],
    *,
    smallest: int,
    largest: int,
    most_vectors: int,
    most_products: int,
    rounding: float,
) -> tuple[Ritz, torch.Tensor, torch.Tensor]:
    """Both ends of the spectrum from one Krylov space.

    Each new vector is made orthogonal to all others, so no eigenvalue comes twice for rounding. A full basis is folded
    into the Ritz vectors at the ends that are wanted, and grows again from there (thick restart). Of an eigenvalue that
    the operator has several times it may find one copy only.

    Args:
        product: The operator: writes its product with the first vector into the second, shapes (n,).
        start: First vector, not zero, shape (n,). It should have a part in every eigenvector: a random one does.
        stop: Asked after each product whether that is enough.
        smallest: Eigenvalues wanted at the lower end.
        largest: Eigenvalues wanted at the upper end.
        most_vectors: Vectors of n entries that are kept, two at least beyond those wanted, besides one to work on.
        most_products: After which it ends in any case.
        rounding: Error of a product, as a share of the greatest absolute eigenvalue.

    Returns:
        What is known, and the Ritz vectors of the smallest (ascending) and of the largest (descending), shapes
        (smallest, n) and (largest, n), fewer where the space has fewer dimensions.

    Raises:
        ValueError: `most_vectors` is too small.
        FloatingPointError: The operator returned what is not finite.
        Asymmetric: It is not symmetric.

    Source:
        Wu & Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems (2000).
    """
    size, wanted = len(start), smallest + largest
    if most_vectors < min(wanted + FEWEST, size):
        raise ValueError(f"{wanted} eigenvalues take {wanted + FEWEST} vectors or more, {most_vectors} are allowed")
    if size <= wanted + FEWEST:
        return _whole(product, start, smallest, largest, rounding)
    most = min(most_vectors, size)
    basis = start.new_empty(most + 1, size)  # rows cost nothing until they are used
    projected = torch.zeros(most, most, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    torch.div(start, start.norm(), out=basis[0])
    used, products, coupling = 1, 0, torch.zeros(0, dtype=torch.float64)
    while True:
        vector = basis[used]  # made where it stays: a large tensor's first touch costs as much as a passage
        product(basis[used - 1], vector)
        products += 1
        column, length = _orthogonalise(vector, basis[:used])
        if not bool(torch.isfinite(column).all()):
            raise FloatingPointError("a product is not finite")
        _check_symmetry(column[:-1] - coupling, column, projected)
        projected[:used, used - 1] = projected[used - 1, :used] = column
        values, vectors = torch.linalg.eigh(projected[:used, :used])
        floor = rounding * float(values.abs().max())
        ended = used == size or length <= floor
        residual = 0.0 if ended else length
        bounds = floor + residual * vectors[-1].abs()
        found = Ritz(values, bounds, products, ended, vectors)
        if used == size or stop(found) or products >= most_products:
            return found, *_ends(basis[:used], vectors, smallest, largest)
        if ended:  # go on in what is left of the space
            vector.copy_(torch.randn(size, generator=generator, dtype=start.dtype))
            _, length = _orthogonalise(vector, basis[:used])
        coupling = residual * torch.eye(used, dtype=torch.float64)[-1]
        if used == most:
            kept = _kept(used, smallest, largest)
            coupling = vectors[:, kept].T @ coupling
            used = _fold(basis, projected, values, vectors, kept)
        torch.div(vector, length, out=basis[used])
        used += 1


def _whole(
    product: Product, start: torch.Tensor, smallest: int, largest: int, rounding: float
) -> tuple[Ritz, torch.Tensor, torch.Tensor]:
    """The same from the whole matrix, column by column, where it has hardly more than are wanted."""
    unit = torch.eye(len(start), dtype=start.dtype, device=start.device)
    columns = torch.empty_like(unit)
    for row, column in zip(unit, columns, strict=True):
        product(row, column)
    matrix = columns.cpu().double()
    if not bool(torch.isfinite(matrix).all()):
        raise FloatingPointError("a product is not finite")
    _check_symmetry((matrix - matrix.T) / 2, matrix)
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    found = Ritz(values, rounding * values.abs().max().expand(len(values)), len(unit), True, vectors)
    return found, *_ends(unit, vectors, smallest, largest)


def _ends(basis: torch.Tensor, vectors: torch.Tensor, smallest: int, largest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The Ritz vectors of the smallest (ascending) and of the largest (descending), rows."""
    turned = vectors.T.to(basis)
    return turned[:smallest] @ basis, turned.flip(0)[:largest] @ basis


def _check_symmetry(difference: torch.Tensor, *entries: torch.Tensor) -> None:
    """What a product shows of earlier basis vectors must be what their products showed of this one."""
    if float(difference.norm()) > SYMMETRIC * max(float(e.abs().max()) for e in entries):
        raise Asymmetric


def _orthogonalise(vector: torch.Tensor, basis: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Take from a vector, in place, its part in the space of orthonormal rows.

    First its part in the last rows, where by symmetry all of a product lies but rounding, then that in all, and
    again where much of what was left goes, too. For a small model no other part of Lanczos takes as long as the passage
    of the basis through memory, so there are no more than are needed.

    Returns:
        Its coordinates, shape (j,), and the norm of what is left.

    Source:
        Daniel, Gragg, Kaufman & Stewart, Reorthogonalization and stable algorithms for updating the Gram-Schmidt QR
        factorization (1976).
    """
    coordinates = torch.zeros(len(basis), dtype=torch.float64)
    lengths: list[float] = []
    while len(lengths) < 2 or (len(lengths) < MOST_TIMES and lengths[-1] < STABLE * lengths[-2]):
        rows = basis if lengths else basis[-NEAR:]
        part = rows @ vector
        vector.addmv_(rows.T, part, alpha=-1)
        coordinates[len(basis) - len(rows) :] += part.cpu().double()
        lengths.append(float(vector.norm()))
    return coordinates, lengths[-1]


def _kept(used: int, smallest: int, largest: int) -> torch.Tensor:
    """Places of the Ritz vectors that a restart keeps: those wanted and as many neighbours as half the basis holds."""
    more = max(0, used // 2 - smallest - largest)
    low = smallest + (more * smallest) // (smallest + largest)
    high = largest + (more * largest) // (smallest + largest)
    return torch.cat([torch.arange(low), torch.arange(used - high, used)])


def _fold(
    basis: torch.Tensor, projected: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor, kept: torch.Tensor
) -> int:
    """Put the Ritz vectors that are kept in the place of the basis; how many they are."""
    turn = vectors[:, kept].T.to(basis)
    for some in basis[: len(vectors)].split(BLOCK, dim=1):
        some[: len(kept)] = turn @ some
    projected.zero_()
    projected[range(len(kept)), range(len(kept))] = values[kept]
    return len(kept)
