"""Held batches as tables: a row of numbers and one target for each sample, as other predictors read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.evaluated import MANY
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.predictors import Array

MOST_FEATURES = 4096
MOST_CLASSES = 64
FEWEST = 16  # first batches of a pass, that are held unless memory is short
OVER_CLASSES = ("cross_entropy", "nll_loss")
OVER_TWO = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
MOST_BITS = 24  # that a number of single precision tells apart


@dataclass(frozen=True)
class Table:
    """Samples of one kind, each of them once.

    Attributes:
        x: Features, shape (n, features).
        y: Targets, shape (n,).
        step: Optimiser steps taken when the sample's batch was seen, shape (n,).
        place: Training: its row in that batch. Validation: its place in the pass; -1 where that is not known.
    """

    x: Array
    y: Array
    step: Array
    place: Array

    def __len__(self) -> int:
        return len(self.x)

    def of(self, chosen: Array) -> Table:
        """Some of the rows."""
        return Table(self.x[chosen], self.y[chosen], self.step[chosen], self.place[chosen])


def known(x: Array, others: Array) -> Array:
    """Which rows are among others, entry by entry; shape (n,), bool."""
    seen = {row.tobytes() for row in np.ascontiguousarray(others)}
    return np.array([row.tobytes() in seen for row in np.ascontiguousarray(x, others.dtype)], bool)


def same_width(*parts: Array) -> None:
    """Check that rows are of one length.

    Raises:
        CannotIsolate: They are not, as those of pictures of several sizes.
    """
    if len(widths := sorted({part.shape[1] for part in parts})) > 1:
        raise CannotIsolate(f"samples differ in size: some have {widths[0]} numbers and others {widths[-1]}")


def table_of(bench: Bench, kind: str, most: int, one_hot: bool = False, patterns: bool = False) -> Table:
    """The held samples of a kind, ``train`` or ``val``; one that was held twice is in it once.

    Args:
        bench: Which holds them.
        kind: Of the batches.
        most: Rows, drawn at random where there are more.
        one_hot: Targets are one-hot rows; the table has their classes.
        patterns: Targets that are rows of zeros and ones are numbered, alike ones by the same number.

    Raises:
        CannotIsolate: There are none, or they are not rows of numbers with one target each.
    """
    batches = bench.batches(kind, MANY)
    parts = [rows_of(batch, one_hot, patterns) for batch in batches]
    same_width(*(x for x, _ in parts))
    x, y = (np.concatenate(some) for some in zip(*parts, strict=True))
    step = np.concatenate(
        [np.full(len(part[0]), getattr(b, "step", -1)) for part, b in zip(parts, batches, strict=True)]
    )
    if kind == "train":
        place = np.concatenate([np.arange(len(part[0])) for part in parts])
    else:
        place = np.arange(len(x)) if _from_the_start(bench, len(batches)) else np.full(len(x), -1)
    _, once = np.unique(x, axis=0, return_index=True)
    chosen = np.sort(once)
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, most, replace=False))
    return Table(np.nan_to_num(x), y, step, place).of(chosen)


def rows_of(batch: Any, one_hot: bool = False, patterns: bool = False) -> tuple[Array, Array]:
    """Features, shape (n, features), and targets, shape (n,), of a held batch; see `table_of`.

    Raises:
        CannotIsolate: It is not made of one tensor of numbers and one target a sample.
    """
    inputs, target = _given(batch)
    if one_hot:
        if not _is_one_hot(target):
            raise CannotIsolate("some targets are one-hot and others are not")
        target = target.argmax(1)
    elif patterns and _is_of_bits(target):
        target = target.double() @ (2.0 ** torch.arange(target.shape[1], dtype=torch.float64, device=target.device))
    if not isinstance(inputs, torch.Tensor) or not inputs.is_floating_point():
        raise CannotIsolate("the model's input is not one tensor of numbers")
    if not isinstance(target, torch.Tensor) or inputs.ndim < 2 or target.numel() != len(inputs):
        raise CannotIsolate("there is not one class or number to predict for each sample")
    if inputs[0].numel() > MOST_FEATURES:
        raise CannotIsolate(f"the inputs have more than {MOST_FEATURES} features")
    y = target.detach().reshape(-1)
    y = y.float() if y.dtype == torch.bfloat16 else y  # which numpy does not know
    return inputs.detach().float().flatten(1).cpu().numpy(), y.cpu().numpy()


def classes_of(bench: Bench, kind: str, most: int) -> Table:
    """As `table_of`, of targets that are classes: whole numbers or one-hot rows, less those that the loss ignores.

    Raises:
        CannotIsolate: As there, or the targets are no classes.
    """
    batch: Batch = bench.batches(kind, 1)[0]
    one_hot = _is_one_hot(_given(batch)[1])
    table, function = table_of(bench, kind, most, one_hot), getattr(batch, "function", "")
    y = table.y
    whole = np.isfinite(y) & (y == np.round(y)) & (y >= 0)
    known = one_hot or function in (*OVER_CLASSES, *OVER_TWO)
    if not known and (function or y.dtype.kind == "f"):
        raise CannotIsolate("the targets are not classes")
    if not one_hot and function in OVER_TWO and not (whole.all() and (y <= 1).all()):
        raise CannotIsolate("the targets are shares of two classes, not one of them")
    found = table.of(np.flatnonzero(whole))
    if len(np.unique(found.y)) > MOST_CLASSES:
        raise CannotIsolate(f"there are more than {MOST_CLASSES} classes")
    return Table(found.x, found.y.astype(np.int64), found.step, found.place)


def _is_one_hot(target: Any) -> bool:
    """Rows of zeros with a single one."""
    if not isinstance(target, torch.Tensor) or target.ndim != 2 or target.shape[1] < 2:
        return False
    ones = target == 1
    return bool((ones.sum(1) == 1).all() and (ones | (target == 0)).all())


def _is_of_bits(target: Any) -> bool:
    """Rows of zeros and ones: several labels, or grades by what they exceed."""
    if not isinstance(target, torch.Tensor) or target.ndim != 2 or not 2 <= target.shape[1] <= MOST_BITS:
        return False
    return bool(((target == 0) | (target == 1)).all())


def _given(batch: Any) -> tuple[Any, Any]:
    """What the model is given and what it is to predict: of a trainer's batch, its two parts."""
    whole = getattr(batch, "batch", None)
    if isinstance(whole, (tuple, list)) and len(whole) == 2:
        return whole[0], whole[1]
    args: Sequence[Any] = getattr(batch, "args", ())
    single = len(args) == 1 and not getattr(batch, "kwargs", None)
    return (args[0] if single else None), getattr(batch, "target", None)


def _from_the_start(bench: Bench, held: int) -> bool:
    """Whether the held validation batches are the first ones of their pass."""
    known = bench.record.facts.get("validation", {}).values()
    passes = [int(facts.get("batches") or 0) for facts in known if facts.get("primary")]
    return held >= min(FEWEST, passes[0]) if passes else False
