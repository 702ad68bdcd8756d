"""A few batches of training and of validation, kept for probes: what the model was given and how its loss follows."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from trainwatch.capture.interception import ORIGINAL, LossCall
from trainwatch.capture.samples import bare, losses_per_sample, samples_in

TRAIN_BATCH, VAL_BATCH = "train", "val"
SLOTS = 16  # batches of each kind, fewer where they are large
MOST_REFUSED = 8  # batches whose loss cannot be computed again, after which no more are looked at
DEEP = 2  # levels of tuples, lists and mappings in which predictions are looked for


@dataclass(frozen=True)
class Held:
    """A batch that is kept by reference, not copied: `intact` tells whether its tensors are still what they were.

    Attributes:
        kind: ``train`` or ``val``.
        step: Optimiser steps taken when it was seen.
        samples: Samples in it.
        size: Bytes that it keeps alive.
        versions: Its tensors, with the version that each had.
    """

    kind: str
    step: int
    samples: int
    size: int
    versions: tuple[tuple[torch.Tensor, int], ...] = field(repr=False)

    @property
    def intact(self) -> bool:
        """No tensor of it was changed in place since."""
        return all(_version(tensor) == version for tensor, version in self.versions)


@dataclass(frozen=True)
class HeldBatch(Held):
    """A batch that a loss can be computed on again.

    Attributes:
        args, kwargs: Of the model's call.
        function: The functional loss; `target`, `positional` and `keywords` are its further arguments.
        predictions: From the model's output to the predictions that the loss was given.
    """

    args: tuple[Any, ...] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    function: str
    target: torch.Tensor | None = field(repr=False)
    positional: tuple[Any, ...] = field(repr=False)
    keywords: dict[str, Any] = field(repr=False)
    predictions: Callable[[Any], torch.Tensor] = field(repr=False)

    def predict(self, model: nn.Module) -> torch.Tensor:
        """What the loss is given, with its graph."""
        args, kwargs = _fresh((self.args, self.kwargs))
        return self.predictions(model(*args, **kwargs))

    def loss(self, model: nn.Module) -> torch.Tensor:
        """The loss of the batch under a model that takes what the watched one takes, with its graph."""
        return self.losses_of(self.predict(model))[0]

    def losses(self, model: nn.Module) -> torch.Tensor:
        """Loss of each sample, shape (samples,), their mean that of the batch; that alone where there are no parts."""
        whole, each = self.losses_of(self.predict(model))
        return whole.reshape(-1) if each is None else each

    def losses_of(self, predictions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The loss of predictions that the model might have made, and its parts, shape (samples,), where it has any."""
        target, positional, keywords = _fresh((self.target, self.positional, self.keywords))
        whole = ORIGINAL[self.function](predictions, target, *positional, **keywords)
        if target is None or not target.ndim or not predictions.ndim:
            return whole, None
        call = LossCall(self.function, whole, predictions, target, positional, keywords, known=True)
        each = losses_per_sample(call, predictions.detach(), target)
        if each is None:
            return whole, None
        scale = whole.detach().mean() / each.nanmean()  # of a sum, or of weights that add up to something else
        return whole, torch.where(scale.isfinite(), each * scale, each)


@dataclass(frozen=True)
class HeldStep(Held):
    """A batch of a trainer, on which the model's own ``training_step`` computes the loss.

    Attributes:
        batch, index: What ``training_step`` is given.
    """

    batch: Any = field(repr=False)
    index: int

    def predict(self, model: nn.Module) -> torch.Tensor:
        """The loss itself: what it was given cannot be seen."""
        return self.loss(model)

    def losses(self, model: nn.Module) -> torch.Tensor:
        """The loss of the batch, shape (1,): those of its samples cannot be seen."""
        return self.loss(model).reshape(-1)

    def loss(self, model: nn.Module) -> torch.Tensor:
        """The loss of the batch under a copy of the module, with its graph.

        Raises:
            ValueError: ``training_step`` returned no loss.
        """
        step: Any = model.training_step
        alone = len(inspect.signature(step).parameters) == 1
        batch = _fresh(self.batch)
        found = step(batch) if alone else step(batch, self.index)
        found = found.get("loss") if isinstance(found, Mapping) else found
        if not isinstance(found, torch.Tensor):
            raise ValueError("training_step returned no loss")
        return found


class HeldBatches:
    """Bounded samples of the batches of a run: any of training alike, the latest of validation.

    Attributes:
        reason: Why none is held, where none is.
    """

    def __init__(self, most_bytes: int) -> None:
        self.reason = "no batch was seen whose loss follows from the model's output"
        self._most = most_bytes // 2  # for each kind
        self._held: dict[str, list[HeldBatch | HeldStep]] = {TRAIN_BATCH: [], VAL_BATCH: []}
        self._draw = random.Random(0)  # our own: the run's random numbers are not touched
        self._seen = self._next = self._refused = 0

    def wants_training(self) -> bool:
        """Whether the coming training batch is one of those to be held: each of the run with the same chance."""
        self._seen += 1
        return self._seen > self._next and self._refused < MOST_REFUSED

    def batches(self, kind: str) -> list[HeldBatch | HeldStep]:
        """Those of a kind whose tensors are still as they were; of validation, those of its latest pass."""
        self._held[kind] = [b for b in self._held[kind] if b.intact]
        latest = max((b.step for b in self._held[kind]), default=0)
        return [b for b in self._held[kind] if kind == TRAIN_BATCH or b.step == latest]

    def offer(
        self, kind: str, step: int, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, call: LossCall
    ) -> None:
        """Hold a batch, if its loss can be computed again."""
        found = _path(output, call)
        if not samples_in(call):
            return
        if found is None:
            self._refused += 1
            if not any(self._held.values()):
                self.reason = f"it is not known how the predictions of '{call.name}' follow from the model's output"
            return
        keywords = {k: v for k, v in (call.keywords or {}).items() if k not in ("input", "target")}
        kept = self._measured((args, kwargs, call.target, call.positional, keywords))
        if kept is not None:
            size, versions = kept
            further = (call.name, call.target, call.positional, keywords)
            self._keep(HeldBatch(kind, step, samples_in(call), size, versions, args, kwargs, *further, found))

    def offer_step(self, step: int, batch: Any, index: int) -> None:
        """Hold a batch that a trainer is about to give to ``training_step``."""
        kept, first = self._measured(batch), bare(batch)
        if kept is not None and first is not None and len(first):
            self._keep(HeldStep(TRAIN_BATCH, step, len(first), *kept, _fresh(batch), index))

    def _measured(self, value: Any) -> tuple[int, tuple[tuple[torch.Tensor, int], ...]] | None:
        """Bytes of all tensors in a batch, and their versions; None where they take too much."""
        tensors = [tensor for _, tensor in _leaves(value)]
        size = sum(t.numel() * t.element_size() for t in tensors)
        if size <= self._most:
            return size, tuple((t, _version(t)) for t in tensors)
        self.reason = f"a batch takes {size / 2**20:.0f} MiB, more than probe_memory leaves for it"
        return None

    def _keep(self, batch: HeldBatch | HeldStep) -> None:
        held = self._held[batch.kind]
        slots = max(1, min(SLOTS, self._most // max(1, batch.size)))
        if len(held) < slots:
            held.append(batch)
        elif batch.kind == TRAIN_BATCH:  # in the place of another: any few of those held are as random as all
            held[self._draw.randrange(len(held))] = batch
        else:
            del held[0]
            held.append(batch)
        if batch.kind == TRAIN_BATCH and len(held) >= slots:
            self._next = self._seen + self._skip(slots)
        while sum(b.size for b in held) > self._most:
            held.pop(0)

    def _skip(self, slots: int) -> int:
        """How many batches pass by until the next one is held: after n batches each is with chance slots / n."""
        n, chance, passed = self._seen, self._draw.random(), 0
        left = 1.0
        while left > chance:
            n, passed = n + 1, passed + 1
            left *= 1 - slots / n
        return passed - 1


def _path(output: Any, call: LossCall) -> Callable[[Any], torch.Tensor] | None:
    """How the predictions of a loss follow from a model's output: a part of it, possibly in another shape."""
    wanted = call.input
    if wanted is None or not call.known:
        return None
    for keys, tensor in _leaves(output, DEEP):
        if tensor is wanted:
            return partial(_at, keys=keys)
        alike = tensor.data_ptr() == wanted.data_ptr() and tensor.numel() == wanted.numel()
        if alike and tensor.dtype == wanted.dtype and tensor.is_contiguous() and wanted.is_contiguous():
            return partial(_at, keys=keys, shape=(-1, *wanted.shape[1:]) if wanted.ndim else ())
    return None


def _leaves(
    value: Any, levels: float = math.inf, keys: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], torch.Tensor]]:
    """The tensors in so many levels of containers, each after the keys that lead to it."""
    if isinstance(value, torch.Tensor):
        yield keys, value
    elif levels:
        items = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
        )
        for key, part in items:
            yield from _leaves(part, levels - 1, (*keys, key))


def _at(output: Any, keys: tuple[Any, ...], shape: tuple[int, ...] | None = None) -> torch.Tensor:
    for key in keys:
        output = output[key]
    found: torch.Tensor = output
    return found if shape is None else found.reshape(shape)


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _fresh(value: Any) -> Any:
    """The same tensors in containers of their own; copies of those that were made in inference mode."""
    if isinstance(value, torch.Tensor):
        return value.clone() if value.is_inference() and not torch.is_inference_mode_enabled() else value
    if type(value) is dict:
        return {k: _fresh(v) for k, v in value.items()}
    return type(value)(_fresh(v) for v in value) if type(value) in (tuple, list) else value
