"""Held batches whose input is one tensor of numbers, and the same batches with inputs that were changed a little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from trainwatch.probes.bench import Bench
from trainwatch.probes.evaluated import MANY
from trainwatch.probes.isolation import CannotIsolate

COPIES = 8  # of all inputs, that a probe may need


def batches_of_numbers(bench: Bench) -> tuple[str, Sequence[Any]]:
    """Held batches of validation, else of training, whose inputs are numbers in tensors of one shape.

    Returns:
        ``val`` or ``train``, and the batches, as many as can be copied within the memory for probes.

    Raises:
        CannotIsolate: There are none of this sort.
    """
    kind = "val" if bench.held("val", MANY) else "train"
    batches: Sequence[Any] = bench.batches(kind, MANY)
    for batch in batches:
        args: tuple[Any, ...] = getattr(batch, "args", ())
        if len(args) != 1 or batch.kwargs or not isinstance(args[0], torch.Tensor) or not args[0].is_floating_point():
            raise CannotIsolate("the model's input is not one tensor of numbers")
    if len({batch.args[0].shape[1:] for batch in batches}) > 1 or batches[0].args[0].ndim < 2:
        raise CannotIsolate("inputs differ in shape from batch to batch, or have no features")
    sizes = [COPIES * batch.args[0].numel() * batch.args[0].element_size() for batch in batches]
    some = int(np.searchsorted(np.cumsum(sizes), bench.memory, side="right"))
    if not some:
        raise CannotIsolate(
            f"{COPIES} copies of a batch take {sizes[0] / 2**20:.0f} MiB, more than probe_memory leaves"
        )
    return kind, batches[:some]


def inputs_of(batches: Sequence[Any]) -> torch.Tensor:
    """Their inputs together, shape (samples, ...)."""
    return torch.cat([batch.args[0].detach() for batch in batches])


def changed(batches: Sequence[Any], inputs: torch.Tensor) -> Iterator[Any]:
    """The batches with these inputs, shape (samples, ...), which a model may change in place, instead of their own."""
    sizes = [len(batch.args[0]) for batch in batches]
    for batch, part in zip(batches, inputs.split(sizes), strict=True):
        yield replace(batch, args=(part.clone(),), versions=())
