"""The extreme eigenvalues of the Hessian of a model, or of any scalar function of tensors (§13)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from trainwatch.probes.curvature import DIFFERENCES, Hessian, NoCurvature
from trainwatch.probes.hessian_input import all_of, counts, differentiable, whole
from trainwatch.probes.isolation import untouched
from trainwatch.probes.lanczos import FEWEST, Asymmetric, Ritz, lanczos

MOST_VECTORS = 128  # of a basis, however much memory there is: from there on orthogonalising costs more than products


class Kinked(NoCurvature):
    """Differences of the gradient meet kinks."""


@dataclass(frozen=True)
class HessianExtremes:
    """Eigenvalues at the ends of a Hessian's spectrum.

    Attributes:
        largest: The largest, descending; empty where not asked for.
        largest_bounds: Of each: an eigenvalue lies within so much of the value.
        smallest: The smallest, ascending: the most negative first.
        smallest_bounds: Of each, the same.
        largest_vectors, smallest_vectors: Of each, the unit eigenvector: name of a parameter -> its part.
        products: Products of the Hessian with a vector that were made.
        method: ``double backward``, or ``finite differences`` where an operation has no second derivative.
        converged: The bounds are within the tolerance.
        reason: Why they are not, otherwise empty.
    """

    largest: tuple[float, ...]
    largest_bounds: tuple[float, ...]
    smallest: tuple[float, ...]
    smallest_bounds: tuple[float, ...]
    largest_vectors: tuple[dict[str, torch.Tensor], ...] = field(repr=False)
    smallest_vectors: tuple[dict[str, torch.Tensor], ...] = field(repr=False)
    products: int
    method: str
    converged: bool
    reason: str


def hessian_extremes(
    function: nn.Module | Callable[[], torch.Tensor],
    parameters: Mapping[str, torch.Tensor] | Iterable[torch.Tensor] | None = None,
    *,
    loss: Callable[[nn.Module, Any], torch.Tensor] | None = None,
    batches: Iterable[Any] | None = None,
    largest: int | None = None,
    smallest: int | None = None,
    k: int = 1,
    which: str = "both",
    tolerance: float = 1e-3,
    dtype: torch.dtype | None = None,
    memory: int = 1 << 29,
    max_products: int = 200,
    stop: Callable[[Ritz], bool] | None = None,
    seed: int = 0,
) -> HessianExtremes:
    """The largest and the smallest eigenvalues of a Hessian, each with a bound, from one Lanczos run.

    Of a model, or of a function of tensors:

        hessian_extremes(model, loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]), batches=batches)
        hessian_extremes(lambda: x.square().sum() - y.square().sum(), [x, y], largest=1)

    A model is copied and the copy set to evaluation mode, so its weights, buffers, gradients, modes and the random
    state of the process stay as they are. The loss is the mean over the batches. Parameters that do not require
    gradients are left out, tied ones count once, unused ones contribute zeros. Of a model in `DistributedDataParallel`
    every process must call this, each with its own batches: the Hessian is that of the mean over all. A function is
    called as it is, always with the same random numbers: put a model in it into evaluation mode.

    Args:
        function: A model, or a function without arguments that computes a real scalar from `parameters`.
        parameters: The leaf tensors of such a function, or name -> tensor.
        loss: For a model: from it and a batch to a real scalar.
        batches: For a model: what `loss` is given in turn, at least one; a loader is gone through once.
        largest: How many of the largest eigenvalues; none by default where only `smallest` is given.
        smallest: How many of the smallest, likewise. Without either it is one of each.
        k: In place of these: so many at each end that `which` names.
        which: ``"both"``, ``"largest"`` or ``"smallest"``.
        tolerance: Bounds at which it ends, as a share of the largest absolute eigenvalue. Below some 1e-5 only double
            precision gets there.
        dtype: Precision of the model's copy and of the floating tensors in its batches. By default that of the model;
            double where finite differences need it, since kinks as of ReLU lie nearer than steps in single precision.
        memory: Bytes that the basis and kept gradient graphs may take, half of it each.
        max_products: Products after which it ends though the bounds are not within the tolerance.
        stop: Ends it as soon as a question is answered, such as ``lambda ritz: ritz.values[0] < -1`` (see `Ritz`).
        seed: Of the first vector.

    Raises:
        NoCurvature: The Hessian cannot be measured; the text says why.
        ValueError: An argument cannot be used; the text names it.
        TypeError: It is of another kind than wanted, or those for a model and for a function are mixed.

    Note:
        A bound tells that there is an eigenvalue so near, and a value never lies beyond the true end of the spectrum.
        That none lies further out is likely, not proven: in 540 runs on small nets with the default tolerance, three
        took a neighbour for the last eigenvalue, half a per cent away. A tighter tolerance makes that rarer. Of an
        eigenvalue that occurs several times one copy may be found only. ReLU and its like have the Hessian of the
        piece that they are on: what their kinks add is not seen. An operation written by hand whose backward pass
        cannot be differentiated is noticed where it is marked `once_differentiable`, or else by products that are not
        symmetric, as it makes them inside a net; unmarked, as the first operation on a parameter it may pass for a
        linear one, and one that detaches merely what it saved loses its own curvature unseen.
    """
    low, high = counts(largest, smallest, k, which)
    whole(max_products=max_products, memory=memory)
    whole(0, seed=seed)
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not tolerance > 0:
        raise ValueError(f"tolerance must be a number above 0, got {tolerance!r}")
    if stop is not None and not callable(stop):
        raise TypeError(f"stop must be a function of what is known so far, got {type(stop).__name__}")

    def stopped(ritz: Ritz) -> bool:
        return ritz.converged(low, high, tolerance) or (stop is not None and bool(stop(ritz)))

    with untouched(torch.device("cpu")):  # a loader that shuffles draws random numbers
        given = function, parameters, loss, all_of(batches)
    search = partial(
        _search, stop=stopped, smallest=low, largest=high, memory=memory, most_products=max_products, seed=seed
    )
    try:
        hessian, named, found, ends = search(*given, dtype)
    except Kinked:
        if dtype is not None or not isinstance(function, nn.Module):
            raise
        hessian, named, found, ends = search(*given, torch.float64)
    converged = found.converged(low, high, tolerance)
    ended = "`max_products` was reached" if found.products >= max_products else "`stop` ended it"
    bottom, top = (
        tuple(dict(zip(named, map(torch.clone, hessian.split(v)), strict=True)) for v in end) for end in ends
    )
    values, bounds = found.values.tolist(), found.bounds.tolist()
    return HessianExtremes(
        largest=tuple(values[::-1][:high]),
        largest_bounds=tuple(bounds[::-1][:high]),
        smallest=tuple(values[:low]),
        smallest_bounds=tuple(bounds[:low]),
        largest_vectors=top,
        smallest_vectors=bottom,
        products=hessian.products,
        method=hessian.method,
        converged=converged,
        reason="" if converged else ended,
    )


def _search(
    function: nn.Module | Callable[[], torch.Tensor],
    parameters: Mapping[str, torch.Tensor] | Iterable[torch.Tensor] | None,
    loss: Callable[[nn.Module, Any], torch.Tensor] | None,
    batches: Sequence[Any] | None,
    dtype: torch.dtype | None,
    *,
    stop: Callable[[Ritz], bool],
    smallest: int,
    largest: int,
    memory: int,
    most_products: int,
    seed: int,
) -> tuple[Hessian, dict[str, torch.Tensor], Ritz, tuple[torch.Tensor, torch.Tensor]]:
    """The Hessian, its parameters, what is known of its spectrum, and the eigenvectors of both ends."""
    with differentiable(function, parameters, loss, batches, dtype) as (losses, named, combine):
        hessian = Hessian(losses, list(named.values()), memory=memory // 2, combine=combine)
        wanted = smallest + largest
        if hessian.size < wanted:
            have = "1 entry" if hessian.size == 1 else f"{hessian.size} entries"
            raise ValueError(f"the parameters have {have}, too few for {wanted} eigenvalues: ask for fewer")
        entry = torch.finfo(hessian.dtype).bits // 8
        most = memory // 2 // (hessian.size * entry)
        if most < (fewest := min(wanted + FEWEST, hessian.size)):
            needed = math.ceil(2 * fewest * hessian.size * entry / 2**20)
            raise ValueError(
                f"memory allows {most} vectors of {fewest}: allow {needed} MiB or ask for fewer eigenvalues"
            )
        found, *ends = spectrum_ends(
            hessian,
            stop,
            smallest=smallest,
            largest=largest,
            most_vectors=min(most, max(MOST_VECTORS, 2 * wanted)),
            most_products=most_products,
            seed=seed,
        )
        hessian.release()
        return hessian, named, found, (ends[0], ends[1])


def spectrum_ends(
    hessian: Hessian,
    stop: Callable[[Ritz], bool],
    *,
    smallest: int,
    largest: int,
    most_vectors: int,
    most_products: int,
    seed: int = 0,
) -> tuple[Ritz, torch.Tensor, torch.Tensor]:
    """As `lanczos`, from a random vector that is the same on every device and in every process.

    Where double backward turns out not to be symmetric, an operation was silently taken for a constant, and finite
    differences are used instead, unless these are not symmetric, either.

    Raises:
        NoCurvature: The products are not finite, or not those of a function with second derivatives (`Kinked`).
    """
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(hessian.size, generator=generator, dtype=torch.float32).to(hessian.device, hessian.dtype)
    while True:
        try:
            return lanczos(
                hessian,
                start,
                stop,
                smallest=smallest,
                largest=largest,
                most_vectors=most_vectors,
                most_products=most_products,
                rounding=hessian.rounding,
            )
        except FloatingPointError as error:
            raise NoCurvature("a product of the Hessian is not finite") from error
        except Asymmetric as error:
            if hessian.method == DIFFERENCES:
                raise Kinked(
                    "an operation has no second derivative, and differences of the gradient are not those of a smooth "
                    "function: kinks such as those of ReLU lie nearer than the steps that rounding allows. Double "
                    "precision allows shorter ones: dtype=torch.float64, or such parameters"
                ) from error
            hessian.use_differences()
