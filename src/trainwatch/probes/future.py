"""Whether outputs follow inputs that come later, where those are what is to be told: next tokens, next values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from trainwatch.probes.bench import Bench, Evaluation, Exchangeable
from trainwatch.probes.isolation import CannotIsolate

KIND = "future"
QUANTITIES = (KIND,)
STEPS = 3  # forward passes of one batch
FEWEST = 4  # positions of a sequence
VARIED = 0.1  # of the neighbours in time differ: what stands still tells no order
TOLD = 8  # entries that are no padding, at least
MOST_DIMENSIONS = 4
LEFT_OUT = -100  # a class that losses leave out, unless they name another


@dataclass(frozen=True)
class Sequences:
    """An input whose positions are the targets of those before.

    Attributes:
        name: Of the input; `x` is its tensor.
        time: Its dimension of positions.
        shape: Of the targets, laid out as the input: as many positions, or one less.
        told: Which positions count in the loss, shape (positions of the targets, the rest).
    """

    name: str
    x: Tensor
    time: int
    shape: tuple[int, ...]
    told: Tensor

    def exchanged_from(self, position: int) -> Tensor:
        """The input with the values of another sample from a position on; of a single one, its own turned round."""
        x, samples = self.x.detach(), 1 if self.time == 0 else 0
        others = x.roll(1, samples) if x.shape[samples] > 1 else x.flip(self.time)
        rest = x.shape[self.time] - position
        return torch.cat([x.narrow(self.time, 0, position), others.narrow(self.time, position, rest)], self.time)

    def by_position(self, predictions: Tensor, target: Tensor) -> Tensor:
        """Predictions as (positions, the rest, numbers of each entry)."""
        classes_second = predictions.ndim == target.ndim + 1  # as cross-entropy takes them
        numbers = predictions.movedim(1, -1) if classes_second else predictions
        return (
            numbers.reshape(*self.shape, -1)
            .movedim(self.time, 0)
            .reshape(self.shape[self.time], self.told.shape[1], -1)
        )


def measure(bench: Bench) -> None:
    """Exchange the later half of a sequence, and see what a copy in evaluation mode says of the positions before it.

    Asked is that the targets of the loss are an input one position further. A row of `future`, under the name of the
    input, is the largest root mean square change of what is said at a position before the exchange, that at one behind
    it, and the positions of a sequence; of positions that count in the loss.

    Raises:
        CannotIsolate: The loss is not given the next inputs, equal passes differ, or memory does not suffice.
    """
    batch = bench.batches("train", 1)[0]
    if not isinstance(batch, Exchangeable):
        raise CannotIsolate("what the loss is given cannot be seen")
    tensors = [(name, t) for _, name, t in batch.tensors() if _is_plain(t) and 1 < t.ndim <= MOST_DIMENSIONS]
    with bench.model(finite=False) as model, torch.no_grad():
        if any(isinstance(m, _BatchNorm) and m.running_mean is None for m in model.modules()):
            raise CannotIsolate("batch norm without running statistics mixes all positions, whatever the mask")
        first = batch.evaluation(model)
        found = next_wanted(tensors, first)
        half = found.shape[found.time] // 2 | 1  # odd, so that it lies within blocks of positions
        plain = _said(found, first, bench.memory)
        if not _apart(plain, _said(found, batch.evaluation(model), bench.memory)).eq(0).all():
            raise CannotIsolate("two passes over the same batch differ, as where a model keeps a state between batches")
        later = batch.exchanged(found.x, found.exchanged_from(half)).evaluation(model)
        apart = _apart(plain, _said(found, later, bench.memory))
    counted = found.told.sum(1).clamp(min=1)
    changes = (torch.where(found.told, apart, 0.0).sum(1) / counted).sqrt()
    row = [float(changes[:half].max()), float(changes[half:].max()), len(changes)]
    bench.record.append(KIND, found.name, bench.step, row)


def _said(found: Sequences, evaluation: Evaluation, most_bytes: int) -> Tensor:
    predictions, target = evaluation.input, evaluation.target
    if predictions is None or target is None or not predictions.is_floating_point():
        raise CannotIsolate("what the loss is given cannot be seen")
    if 2 * predictions.numel() * predictions.element_size() > most_bytes:
        raise CannotIsolate("the outputs of a batch take more than half of probe_memory")
    if predictions.isnan().any():
        raise CannotIsolate("the outputs are no numbers")
    try:
        return found.by_position(predictions.detach(), target)
    except RuntimeError:
        raise CannotIsolate("the outputs have no row for each position of the sequence") from None


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """Mean square differences, shape (positions, the rest), position by position, since outputs may be large."""
    pairs = zip(one, other, strict=True)
    return torch.stack([torch.where(a == b, 0.0, (a - b).double()).square().mean(1) for a, b in pairs])


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_complex()


def next_wanted(tensors: Sequence[tuple[str, Tensor]], evaluation: Evaluation) -> Sequences:
    """The input whose next positions are what the loss wants; one of as many positions as that before any other.

    Raises:
        CannotIsolate: There is none.
    """
    y = evaluation.target
    if y is not None and _is_plain(y):
        left_out = evaluation.arguments.get("ignore_index", LEFT_OUT)
        for less in (0, 1):
            for name, x in tensors:
                for time in (1, 0, 2)[: x.ndim]:
                    found = _followed(name, x, time, y.detach().to(x.device), less, left_out)
                    if found is not None:
                        return found
    raise CannotIsolate("what the loss wants was not recognised as the inputs one position further")


def _followed(name: str, x: Tensor, time: int, y: Tensor, less: int, left_out: int) -> Sequences | None:
    whole = not y.is_floating_point()
    values = x.detach().argmax(2) if whole and time < 2 and _is_one_hot(x) else x.detach()
    steps = values.shape[time]
    if steps < FEWEST or values.is_floating_point() == whole:
        return None
    shape = [*values.shape]
    shape[time] -= less
    merged = (shape[0] * shape[1], *shape[2:]) if time < 2 else ()
    if tuple(y.shape) not in (tuple(shape), merged):
        return None
    wanted = y.reshape(shape).movedim(time, 0).reshape(shape[time], -1)
    given = values.movedim(time, 0).reshape(steps, -1)
    told = wanted.ne(left_out) & wanted.ge(0) if whole else torch.ones_like(wanted, dtype=torch.bool)
    known = told[: steps - 1]
    moves = (given[1:] != given[:-1])[known]
    if known.sum() < TOLD or moves.double().mean() < VARIED or (wanted[: steps - 1] != given[1:])[known].any():
        return None
    return Sequences(name, x, time, tuple(shape), told)


def _is_one_hot(x: Tensor) -> bool:
    numbers = x.is_floating_point() and x.ndim == 3
    return numbers and bool(((x == 0) | (x == 1)).all()) and bool((x.sum(2) == 1).all())
