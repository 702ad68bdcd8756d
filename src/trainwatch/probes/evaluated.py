"""The loss of held batches as a verdict on fit must compare it: in evaluation mode, training and validation alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.isolation import CannotIsolate

KIND = "train_eval"
QUANTITIES = ("evaluated_loss",)
AT_END = True
STEPS = 16  # some 50 forward passes
FEW = 512  # samples of validation in whole batches, at least, where they are looked at time and again
MANY = 64  # batches: all that are held

Losses = NDArray[np.float64]
Seen = TypeVar("Seen")


def measure(bench: Bench) -> None:
    """Record the loss of held training batches in both modes and of held validation batches in evaluation mode.

    A row of `evaluated_loss` is (training in evaluation mode, its standard error, training in training mode,
    validation in evaluation mode, its standard error).
    """
    batches, others = bench.batches("train", MANY), bench.held("val", MANY)
    with bench.model() as model:
        evaluating, validating = losses_of(model, batches), losses_of(model, others)
    with bench.model(training=True) as model:
        training = losses_of(model, batches)
    row = [*mean_and_error(evaluating), mean_and_error(training)[0], *mean_and_error(validating)]
    bench.record.append("evaluated_loss", "held", bench.step, row)


def to_try(bench: Bench, why: str) -> tuple[Sequence[Batch], Sequence[Batch]]:
    """Training batches for copies to learn from, and some of validation to look at time and again.

    Raises:
        CannotIsolate: None of validation is held to see `why`, or a trainer's losses are not in the criterion's unit.
    """
    train, val = bench.batches("train", MANY), bench.held("val", MANY)
    if not val:
        raise CannotIsolate(f"no validation batch is held to see {why}")
    val = val[: int(np.searchsorted(np.cumsum([0, *(batch.samples for batch in val)]), FEW))]
    if not bench.in_unit_of_the_run((*train, *val)):
        raise CannotIsolate("the trainer's step returns a multiple of the criterion")
    return train, val


def seen_at(marks: Collection[int], steps: Iterable[int], model: nn.Module, see: Callable[[], Seen]) -> list[Seen]:
    """Let a copy learn, and say what is seen of it in evaluation mode after some of its steps.

    Args:
        marks: The steps after which it is looked at.
        steps: The number of each step, after it has been taken.
        model: The copy.
        see: The look.
    """
    looks = []
    for step in steps:
        if step in marks:
            with evaluating(model):
                looks.append(see())
    return looks


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode for a while; after that each module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in modes:
            module.training = training


def losses_of(model: nn.Module, batches: Sequence[Batch]) -> Losses:
    """Loss of each sample of some batches (of each batch, where its samples' cannot be had), shape (n,)."""
    if not batches:
        return np.zeros(0)
    with torch.no_grad():
        return torch.cat([batch.losses(model).float() for batch in batches]).cpu().numpy().astype(np.float64)


def level(losses: Losses) -> float:
    """Their mean, by which looks at a copy are compared: infinite where it is no number."""
    return float(np.nan_to_num(losses.mean(), nan=np.inf))


def compared(before: Sequence[Losses], one: Sequence[Losses], other: Sequence[Losses]) -> list[float]:
    """Two copies and the run, for each kind of batches: mean losses of the run, of one, of the other, and two errors.

    These are standard errors of the difference of the copies, and of the run and the other copy.
    """
    row: list[float] = []
    for three in zip(before, one, other, strict=True):
        errors = [mean_and_error(three[i] - three[2])[1] for i in (1, 0)]
        row += [*(mean_and_error(losses)[0] for losses in three), *errors]
    return row


def mean_and_error(losses: Losses) -> tuple[float, float]:
    """Mean and its standard error, absent where there are no losses, or no two."""
    known = losses[~np.isnan(losses)]
    if len(known) < 2:
        return (float(known[0]) if len(known) else np.nan), np.nan
    with np.errstate(invalid="ignore", over="ignore"):  # losses may be infinite
        return float(known.mean()), float(known.std(ddof=1) / len(known) ** 0.5)
