"""Whether what the model says of a sample depends on the other samples of its batch, in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from trainwatch.capture.samples import leaves
from trainwatch.checks.batch import OneBatch
from trainwatch.probes.bench import Bench
from trainwatch.probes.isolation import CannotIsolate

REPEATS = 1e-6  # of the outputs' mean square: beyond it, what differs between equal passes is no rounding


def measure(bench: Bench, batch: OneBatch, *, first_is_batch: bool) -> None:
    """Record `batch_dependence` of the samples and, where a dimension of time may come first, of the second dimension.

    Half of the samples are replaced by copies of the other half, and the batch is turned round. A row is the root mean
    square of (change of what is said of samples that stayed, of samples that were replaced, of samples in the turned
    batch, difference between a sample and its opposite number, the outputs themselves), the rounding unit of their
    type, whether two passes over the same batch differ (0 or 1), and the number of samples.

    Args:
        bench: Where the model comes from and the row goes.
        batch: The batch.
        first_is_batch: The samples are known to lie along the first dimension.

    Raises:
        CannotIsolate: Inputs and outputs do not have a row for each sample, there is just one, or equal passes differ.
    """
    dimensions = (0,) if first_is_batch or not _may_begin_with_time(batch) else (0, 1)
    try:
        rows = _rows_of(bench, _in_double(batch), dimensions, double=True)
    except CannotIsolate:
        raise
    except Exception:  # a part of the model is of a fixed type, or the device knows no double precision
        rows = _rows_of(bench, batch, dimensions, double=False)
    for dimension, row in rows.items():
        bench.record.append("batch_dependence", f"dimension {dimension}", bench.step, row)


def _rows_of(bench: Bench, batch: OneBatch, dimensions: Sequence[int], *, double: bool) -> dict[int, list[float]]:
    with bench.model(further=1) as model, torch.no_grad():
        model = model.double() if double else model
        return {dimension: _row(model, batch, dimension) for dimension in dimensions}


def _row(model: nn.Module, batch: OneBatch, dimension: int) -> list[float]:
    tensors = [tensor for _, tensor in leaves((batch.inputs,))]
    sizes = {tensor.shape[dimension] if tensor.ndim > dimension else 0 for tensor in tensors}
    n = max(sizes)
    if len(sizes) > 1 or n < 2:
        raise CannotIsolate("the inputs do not hold two samples or more in rows of equal number")
    half = n // 2
    kept = torch.arange(half)
    replaced = torch.cat([kept, kept.repeat(n // half + 1)[: n - half]])
    turned = torch.arange(n).flip(0)

    def outputs(order: torch.Tensor | None = None, seed: int = 0) -> torch.Tensor:
        torch.manual_seed(seed)  # what is drawn in evaluation mode is drawn alike
        order = torch.arange(n) if order is None else order
        inputs = _each(batch.inputs, lambda t: t.index_select(dimension, order.to(t.device)))
        return _rows(batch.forward(model, inputs), n, dimension)

    plain = outputs()
    other, back = outputs(replaced), outputs(turned)[turned.to(plain.device)]
    if (outputs() - plain).square().mean() > REPEATS * plain.square().mean():
        raise CannotIsolate("two passes over the same batch differ, as where a model keeps a state between batches")
    random = float(not torch.equal(plain, outputs(seed=1)))
    sizes_of = (other[:half] - plain[:half], other[half:] - plain[half:], back - plain, plain.flip(0) - plain, plain)
    return [*(float(part.square().mean().sqrt()) for part in sizes_of), _unit(batch, model), random, float(n)]


def _rows(outputs: Any, n: int, dimension: int) -> torch.Tensor:
    """What the model says of each sample, in rows of equal length, shape (n, numbers)."""
    parts = [
        tensor.movedim(dimension, 0).reshape(n, -1).double()
        for _, tensor in leaves((outputs,))
        if tensor.is_floating_point() and tensor.ndim > dimension and tensor.shape[dimension] == n
    ]
    if not parts:
        raise CannotIsolate("the model's outputs have no row for each sample")
    return torch.cat(parts, 1)


def _in_double(batch: OneBatch) -> OneBatch:
    return replace(batch, inputs=_each(batch.inputs, lambda t: t.double() if t.is_floating_point() else t))


def _each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same containers with each tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each(part, change) for key, part in value.items()}
    return type(value)(_each(part, change) for part in value) if isinstance(value, (tuple, list)) else value


def _may_begin_with_time(batch: OneBatch) -> bool:
    """Inputs and targets agree in two dimensions, so that either may count the samples."""
    shapes = {tuple(tensor.shape[:2]) for _, tensor in leaves((batch.inputs, batch.targets))}
    return len(shapes) == 1 and len(shape := next(iter(shapes))) == 2 and shape[1] > 1


def _unit(batch: OneBatch, model: nn.Module) -> float:
    """The coarsest rounding among what the model computes with."""
    return max((torch.finfo(t.dtype).eps for t in _floating(batch, model)), default=0.0)


def _floating(batch: OneBatch, model: nn.Module) -> Iterator[torch.Tensor]:
    yield from (t for _, t in leaves((batch.inputs,)) if t.is_floating_point())
    yield from (p for p in model.parameters() if p.is_floating_point())
