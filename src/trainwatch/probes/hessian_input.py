"""What `hessian_extremes` is asked: checked, and made into losses without arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from trainwatch.probes.curvature import Combine, Loss
from trainwatch.probes.isolation import twin, untouched
from trainwatch.probes.quick import quicken

WHICH = {"both": (1, 1), "largest": (0, 1), "smallest": (1, 0)}
Differentiable = tuple[Sequence[Loss], dict[str, torch.Tensor], Combine]


def counts(largest: int | None, smallest: int | None, k: int, which: str) -> tuple[int, int]:
    """How many eigenvalues at the lower and at the upper end.

    Raises:
        ValueError: One of them is no number that can be asked for, or `which` no end.
        TypeError: They are said twice.
    """
    if largest is None and smallest is None:
        if which not in WHICH:
            raise ValueError(f"which must be one of {', '.join(WHICH)}, got {which!r}")
        low, high = WHICH[which]
        whole(k=k)
        return k * low, k * high
    if (k, which) != (1, "both"):
        raise TypeError("largest and smallest already say how many at each end: leave k and which out")
    whole(0, largest=largest or 0, smallest=smallest or 0)
    if not (largest or smallest):
        raise ValueError("largest and smallest are both 0: ask for one eigenvalue or more")
    return smallest or 0, largest or 0


def whole(least: int = 1, **values: int) -> None:
    """Refuse what is not a whole number, or too small.

    Raises:
        ValueError: That it is, by its name.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}")


def all_of(batches: Iterable[Any] | None) -> Sequence[Any] | None:
    """Batches of any kind of loader, once and for all.

    Raises:
        TypeError: They are a single one.
        ValueError: There are none.
    """
    if batches is None:
        return None
    if isinstance(batches, (torch.Tensor, Mapping, str)) or not isinstance(batches, Iterable):
        raise TypeError(f"batches must be a sequence of what loss is given in turn, got one {_kind(batches)}: [batch]")
    if not (given := list(batches)):
        raise ValueError("batches is empty: pass at least one of them")
    if all(isinstance(batch, torch.Tensor) for batch in given) and len({batch.dtype for batch in given}) > 1:
        raise TypeError("batches are tensors of different dtypes, which looks like one batch: [batch]")
    return given


@contextmanager
def differentiable(
    function: nn.Module | Callable[[], torch.Tensor],
    parameters: Mapping[str, torch.Tensor] | Iterable[torch.Tensor] | None,
    loss: Callable[[nn.Module, Any], torch.Tensor] | None,
    batches: Sequence[Any] | None,
    dtype: torch.dtype | None,
) -> Iterator[Differentiable]:
    """Losses without arguments, the tensors they are functions of, and how processes are combined."""
    if not isinstance(function, nn.Module):
        if not callable(function):
            raise TypeError(f"function must be a model or a function without arguments, got {_kind(function)}")
        if loss is not None or batches is not None or dtype is not None:
            raise TypeError("loss, batches and dtype belong to a model: `function` is none, pass `parameters` only")
        yield [function], _named(parameters), lambda t: None
        return
    if parameters is not None or loss is None or batches is None:
        raise TypeError("a model needs `loss` and `batches`, and no `parameters`")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be a floating one, such as torch.float64, got {dtype!r}")
    device = next((p.device for p in function.parameters()), torch.device("cpu"))
    if device.type == "meta":
        raise ValueError("the model is on the meta device, without values: load its weights first")
    with untouched(device, function):
        model = twin(function, most_bytes=1 << 62).eval()
        quicken(model)
        if dtype is not None:
            model, batches = model.to(dtype), [_cast(batch, dtype) for batch in batches]
        named: dict[str, torch.Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not named:
            raise ValueError("no parameter of the model requires gradients: unfreeze those that are meant")
        yield [partial(loss, model, batch) for batch in batches], named, averaging(function)


def averaging(model: nn.Module) -> Combine:
    """The average over the processes of a `DistributedDataParallel`, in place; nothing otherwise."""
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        return lambda t: None
    group = model.process_group

    def average(tensor: torch.Tensor) -> None:
        torch.distributed.all_reduce(tensor, group=group)
        tensor /= torch.distributed.get_world_size(group)

    return average


def _named(parameters: Mapping[str, torch.Tensor] | Iterable[torch.Tensor] | None) -> dict[str, torch.Tensor]:
    if parameters is None:
        raise TypeError("a function needs `parameters`: the leaf tensors that it is a function of")
    if isinstance(parameters, torch.Tensor):
        raise TypeError("parameters must be a sequence of tensors, or name -> tensor, got one tensor: [tensor]")
    named = dict(parameters) if isinstance(parameters, Mapping) else {str(i): p for i, p in enumerate(parameters)}
    for name, p in named.items():
        if not isinstance(p, torch.Tensor):
            remedy = ": dict(model.named_parameters())" if isinstance(p, tuple) else ""
            raise TypeError(f"parameter {name!r} must be a tensor, got {_kind(p)}{remedy}")
        if not p.is_leaf or not p.requires_grad:
            why = "was computed from others" if not p.is_leaf else f"is a {p.dtype} without gradients"
            raise ValueError(f"parameter {name!r} must be a leaf tensor that requires gradients: it {why}")
    if not named or len({id(p) for p in named.values()}) < len(named):
        raise ValueError("parameters must be one or more different tensors")
    return named


def _kind(value: object) -> str:
    return type(value).__name__


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
