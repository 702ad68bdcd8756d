"""The extreme eigenvalues of the Hessian of a model, or of any scalar function of tensors (§13)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from trainwatch.probes.curvature import DIFFERENCES, Combine, Hessian, NoCurvature
from trainwatch.probes.isolation import twin, untouched
from trainwatch.probes.lanczos import FEWEST, Asymmetric, Ritz, lanczos
from trainwatch.probes.quick import quicken

WHICH = {"both": (1, 1), "largest": (0, 1), "smallest": (1, 0)}
MOST_VECTORS = 128  # of a basis, however much memory there is: from there on orthogonalising costs more than products


@dataclass(frozen=True)
class HessianExtremes:
    """Eigenvalues at the ends of a Hessian's spectrum.

    Attributes:
        largest: The k largest, descending; empty where not asked for.
        largest_bounds: Of each: an eigenvalue lies within so much of the value.
        smallest: The k smallest, ascending: the most negative first.
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
    batches: Sequence[Any] | None = None,
    k: int = 1,
    which: str = "both",
    tolerance: float = 1e-3,
    dtype: torch.dtype | None = None,
    memory: int = 1 << 29,
    max_products: int = 200,
    stop: Callable[[Ritz], bool] | None = None,
    seed: int = 0,
) -> HessianExtremes:
    """The k largest and the k smallest eigenvalues of a Hessian, each with a bound, from one Lanczos run.

    Of a model, or of a function of tensors:

        hessian_extremes(model, loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]), batches=batches)
        hessian_extremes(lambda: x.square().sum() - y.square().sum(), [x, y])

    A model is copied and the copy set to evaluation mode, so its weights, buffers, gradients, modes and the random
    state of the process stay as they are. The loss is the mean over the batches. Parameters that do not require
    gradients are left out, tied ones count once, unused ones contribute zeros. Of a model in `DistributedDataParallel`
    every process must call this, each with its own batches: the Hessian is that of the mean over all.

    Args:
        function: A model, or a function without arguments that computes a real scalar from `parameters`.
        parameters: The leaf tensors of such a function, or name -> tensor.
        loss: For a model: from it and a batch to a real scalar.
        batches: For a model: what `loss` is given in turn, at least one.
        k: Eigenvalues at each end.
        which: ``"both"``, ``"largest"`` or ``"smallest"``.
        tolerance: Bounds at which it ends, as a share of the largest absolute eigenvalue. Below some 1e-5 only double
            precision gets there.
        dtype: Precision of the model's copy and of the floating tensors in its batches; that of the model by default.
        memory: Bytes that the basis and kept gradient graphs may take, half of it each.
        max_products: Products after which it ends though the bounds are not within the tolerance.
        stop: Ends it as soon as a question is answered, such as ``lambda ritz: ritz.values[0] < -1`` (see `Ritz`).
        seed: Of the first vector.

    Raises:
        NoCurvature: The Hessian cannot be measured; the text says why.
        ValueError: An argument cannot be used; the text names it.
        TypeError: Arguments for a model and for a function are mixed.

    Note:
        A bound tells that there is an eigenvalue so near, and a value never lies beyond the true end of the spectrum.
        That none lies further out is likely, not proven: in 540 runs on small nets with the default tolerance, three
        took a neighbour for the last eigenvalue, half a per cent away. A tighter tolerance makes that rarer. Of an
        eigenvalue that occurs several times one copy may be found only. ReLU and its like have the Hessian of the
        piece that they are on: what their kinks add is not seen. An operation written by hand whose backward pass
        cannot be differentiated is noticed by products that are not symmetric, as it makes them inside a net; as the
        first operation on a parameter it may pass for a linear one.
    """
    if which not in WHICH:
        raise ValueError(f"which must be one of {', '.join(WHICH)}, got {which!r}")
    for name, value in (("k", k), ("max_products", max_products)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number, at least 1, got {value!r}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be above 0, got {tolerance!r}")
    smallest, largest = (k * n for n in WHICH[which])
    with _differentiable(function, parameters, loss, batches, dtype) as (losses, named, combine):
        hessian = Hessian(losses, list(named.values()), memory=memory // 2, combine=combine)
        if hessian.size < smallest + largest:
            raise ValueError(f"there are {hessian.size} parameters: k = {k}, which = {which!r} is too many")
        most = memory // 2 // (hessian.size * torch.finfo(hessian.dtype).bits // 8)
        if most < (fewest := min(smallest + largest + FEWEST, hessian.size)):
            size = 2 * fewest * hessian.size * torch.finfo(hessian.dtype).bits // 8
            raise ValueError(f"memory allows {most} vectors of {fewest}: allow {size / 2**20:.0f} MiB or lower k")
        found, low, high = spectrum_ends(
            hessian,
            lambda ritz: ritz.converged(smallest, largest, tolerance) or (stop is not None and bool(stop(ritz))),
            smallest=smallest,
            largest=largest,
            most_vectors=min(most, max(MOST_VECTORS, 2 * (smallest + largest))),
            most_products=max_products,
            seed=seed,
        )
    converged = found.converged(smallest, largest, tolerance)
    ended = "`max_products` was reached" if found.products >= max_products else "`stop` ended it"
    count = len(found.values)
    at_top = range(count - 1, count - 1 - largest, -1)
    parts = [
        tuple(dict(zip(named, map(torch.clone, hessian.split(v)), strict=True)) for v in end) for end in (high, low)
    ]
    return HessianExtremes(
        largest=tuple(float(found.values[i]) for i in at_top),
        largest_bounds=tuple(float(found.bounds[i]) for i in at_top),
        smallest=tuple(found.values[:smallest].tolist()),
        smallest_bounds=tuple(found.bounds[:smallest].tolist()),
        largest_vectors=parts[0],
        smallest_vectors=parts[1],
        products=hessian.products,
        method=hessian.method,
        converged=converged,
        reason="" if converged else ended,
    )


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
    differences are used instead.

    Raises:
        NoCurvature: The products are not finite, or not those of a function with second derivatives.
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
                raise NoCurvature(
                    "an operation has no second derivative, and differences of the gradient are not those of a smooth "
                    "function: kinks such as those of ReLU lie too near, which double precision may get round"
                ) from error
            hessian.use_differences()


Differentiable = tuple[list[Callable[[], torch.Tensor]], dict[str, torch.Tensor], Combine]


@contextmanager
def _differentiable(
    function: nn.Module | Callable[[], torch.Tensor],
    parameters: Mapping[str, torch.Tensor] | Iterable[torch.Tensor] | None,
    loss: Callable[[nn.Module, Any], torch.Tensor] | None,
    batches: Sequence[Any] | None,
    dtype: torch.dtype | None,
) -> Iterator[Differentiable]:
    """Losses without arguments, the tensors they are functions of, and how processes are combined."""
    if not isinstance(function, nn.Module):
        if loss is not None or batches is not None or dtype is not None:
            raise TypeError("loss, batches and dtype belong to a model: `function` is none, pass `parameters` only")
        named = _named(parameters)
        yield [function], named, lambda t: None
        return
    if parameters is not None or loss is None or not batches:
        raise TypeError("a model needs `loss` and at least one of `batches`, and no `parameters`")
    device = next((p.device for p in function.parameters()), torch.device("cpu"))
    with untouched(device, function):
        model = twin(function, most_bytes=1 << 62).eval()
        quicken(model)
        if dtype is not None:
            model, batches = model.to(dtype), [_cast(batch, dtype) for batch in batches]
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not named:
            raise ValueError("no parameter of the model requires gradients: unfreeze those that are meant")
        yield [partial(loss, model, batch) for batch in batches], named, _averaging(function)


def _named(parameters: Mapping[str, torch.Tensor] | Iterable[torch.Tensor] | None) -> dict[str, torch.Tensor]:
    if parameters is None:
        raise TypeError("a function needs `parameters`: the leaf tensors that it is a function of")
    named = dict(parameters) if isinstance(parameters, Mapping) else {str(i): p for i, p in enumerate(parameters)}
    for name, p in named.items():
        if not isinstance(p, torch.Tensor) or not p.is_leaf or not p.requires_grad:
            raise ValueError(f"parameter {name!r} must be a leaf tensor that requires gradients")
    if not named or len({id(p) for p in named.values()}) < len(named):
        raise ValueError("parameters must be one or more different tensors")
    return named


def _averaging(model: nn.Module) -> Combine:
    """The average over the processes of a `DistributedDataParallel`; nothing otherwise."""
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        return lambda t: None
    group = model.process_group

    def average(tensor: torch.Tensor) -> None:
        torch.distributed.all_reduce(tensor, group=group)
        tensor /= torch.distributed.get_world_size(group)

    return average


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """The same batch with its floating tensors in another precision."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: _cast(part, dtype) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [_cast(part, dtype) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
