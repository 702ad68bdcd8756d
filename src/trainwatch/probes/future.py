"""Whether outputs follow inputs that come later, where those are what is to be told: next tokens, next values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from trainwatch.probes.bench import Bench
from trainwatch.probes.isolation import CannotIsolate

KIND = "future"
QUANTITIES = (KIND,)
STEPS = 3  # forward passes of one batch
FEWEST = 4  # positions of a sequence
VARIED = 0.1  # of the neighbours in time differ: what stands still tells no order
LABELLED = 0.5  # of the positions, the others being left out of the loss by a negative class


@runtime_checkable
class Exchangeable(Protocol):
    """A batch of which one input can be replaced."""

    def tensors(self) -> Iterator[tuple[str, str, Tensor]]: ...

    def exchanged(self, old: Tensor, new: Tensor) -> Any: ...

    def given_to_loss(self, model: nn.Module) -> Tensor: ...


@dataclass(frozen=True)
class Order:
    """How the positions of a sequence lie in a tensor.

    Attributes:
        samples, positions: How many there are.
        time_first: Positions come before samples.
    """

    samples: int
    positions: int
    time_first: bool

    def rows(self, tensor: Tensor) -> Tensor | None:
        """The tensor by sample and position, shape (samples, positions, entries); None where it has no such rows."""
        pair = (self.positions, self.samples) if self.time_first else (self.samples, self.positions)
        shape = tuple(tensor.shape)
        if shape[:2] == pair or shape[:1] == (pair[0] * pair[1],):
            found = tensor.reshape(*pair, -1)
        elif tensor.ndim == 3 and (shape[0], shape[2]) == pair:  # classes between, as cross-entropy has them
            found = tensor.movedim(1, 2)
        else:
            return None
        return found.transpose(0, 1) if self.time_first else found


def measure(bench: Bench) -> None:
    """Exchange the later half of a sequence, and see what a copy in evaluation mode says of the positions before it.

    Asked is that targets are the inputs one position further. A row of `future`, under the name of the input, is the
    largest root mean square change over samples at a position before the exchange, that at one behind it, the outputs
    themselves, and the positions of a sequence.

    Raises:
        CannotIsolate: No targets are the next inputs, outputs have no row for each position, or equal passes differ.
    """
    batch = bench.batches("train", 1)[0]
    if not isinstance(batch, Exchangeable):
        raise CannotIsolate("what the loss is given cannot be seen")
    name, x, order, dimension = _next_wanted(list(batch.tensors()))
    half = x.shape[dimension] // 2
    others = x.detach().roll(1, 1 - dimension) if x.shape[1 - dimension] > 1 else x.detach().flip(dimension)
    kept, exchanged = x.detach().narrow(dimension, 0, half), others.narrow(dimension, half, x.shape[dimension] - half)
    later = torch.cat([kept, exchanged], dimension)
    with bench.model(finite=False) as model, torch.no_grad():
        plain, again, other = (_said(batch.exchanged(x, given).given_to_loss(model), order) for given in (x, x, later))
    if not torch.equal(plain, again):
        raise CannotIsolate("two passes over the same batch differ, as where a model keeps a state between batches")
    changes = (other - plain).square().mean((0, 2)).sqrt()
    row = [
        float(changes[:half].max()),
        float(changes[half:].max()),
        float(plain.square().mean().sqrt()),
        order.positions,
    ]
    bench.record.append(KIND, name, bench.step, row)


def _said(outputs: Tensor, order: Order) -> Tensor:
    ambiguous = outputs.ndim == 3 and outputs.shape[1] == outputs.shape[2]
    rows = None if ambiguous else order.rows(outputs.detach())
    if rows is None:
        raise CannotIsolate("the outputs have no row for each position of the sequence")
    return rows.double()


def _next_wanted(tensors: Sequence[tuple[str, str, Tensor]]) -> tuple[str, Tensor, Order, int]:
    """The input whose next positions are the targets: name, tensor, order of the targets, its dimension of time.

    Raises:
        CannotIsolate: There is none.
    """
    inputs = [(name, t) for role, name, t in tensors if role == "input" and t.ndim > 1]
    targets = [t for role, _, t in tensors if role == "target"]
    for name, x in inputs:
        for dimension in (1, 0):
            for y in targets:
                rows = _entries(x.detach() if dimension else x.detach().transpose(0, 1), y)
                order = _order_of_next(rows, y.detach())
                if order is not None:
                    return name, x, order, dimension
    raise CannotIsolate("the targets are not the inputs one position further")


def _entries(x: Tensor, y: Tensor) -> Tensor:
    """Inputs as rows, shape (samples, positions, entries), as targets have them: classes, where those are one-hot."""
    if not x.is_floating_point() or y.is_floating_point() or x.ndim != 3:
        return x.reshape(*x.shape[:2], -1)
    one_hot = bool(((x == 0) | (x == 1)).all()) and bool((x.sum(2) == 1).all())
    return x.argmax(2, keepdim=True) if one_hot else x


def _order_of_next(x: Tensor, y: Tensor) -> Order | None:
    """How targets lie that are the next of inputs, shape (samples, positions, entries); None if they are not."""
    n, steps = x.shape[:2]
    following, moves = x[:, 1:], (x[:, 1:] != x[:, :-1]).any(2)
    numbers = y.is_floating_point()
    if steps < FEWEST or x.is_floating_point() != numbers or moves.double().mean() < VARIED:
        return None
    for positions in (steps, steps - 1):
        for time_first in (False, True):
            order = Order(n, positions, time_first)
            rows = order.rows(y) if y.numel() == n * positions * x.shape[2] else None
            if rows is None or rows.shape[2] != x.shape[2]:
                continue
            wanted = rows[:, : steps - 1]
            told = torch.ones_like(moves) if numbers else (wanted >= 0).all(2)
            same = (wanted == following).all(2)
            if told.double().mean() >= LABELLED and bool((same | ~told).all()):
                return order
    return None
