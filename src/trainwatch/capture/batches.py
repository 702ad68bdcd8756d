"""Batches that can be run again: what the model was given and how its loss follows. By reference, not copied."""

from __future__ import annotations

import copy
import hashlib
import inspect
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from trainwatch.capture.classes import version_of
from trainwatch.capture.interception import LossCall, losses_collected, the_one
from trainwatch.capture.samples import bare, leaves, loss_again, losses_per_sample, samples_in

if TYPE_CHECKING:
    from typing_extensions import Self

TRAIN_BATCH, VAL_BATCH = "train", "val"
TARGETS = ("target", "targets", "label", "labels", "y")  # names under which batches hold what is to be predicted
GIVEN = ("args", "kwargs", "target", "further", "batch")  # of a held batch, what has a row for each sample
MOST_DIMENSIONS = 5  # of predictions in another order: samples, classes, and three of space
DEEP = 2  # levels of tuples, lists and mappings in which predictions are looked for


Path = Callable[[Any], torch.Tensor]  # from the model's output to predictions
Parts = Sequence[tuple[tuple[Any, ...], "weakref.ref[torch.Tensor]"]]

WITH_VARIANCE = ("gaussian_nll_loss",)  # a tensor of variances, which most models put out


@dataclass(frozen=True)
class Held:
    """A batch that is kept by reference, not copied: `intact` tells whether its tensors are still what they were.

    Attributes:
        kind: ``train`` or ``val``.
        step: Optimiser steps taken when it was seen.
        samples: Samples in it.
        size: Bytes that it keeps alive.
        versions: Its tensors, with the version that each had.
        complete: Its loss is all that the run backpropagates, terms that are added to the criterion included.
    """

    complete: ClassVar[bool] = False

    kind: str
    step: int
    samples: int
    size: int
    versions: tuple[tuple[torch.Tensor, int | None], ...] = field(repr=False)

    @property
    def intact(self) -> bool:
        """No tensor of it was changed in place since."""
        return all(version_of(tensor) == version for tensor, version in self.versions)

    @property
    def mixed(self) -> bool:
        """Its predictions were held against other targets as well, so that its loss is only a part of what it was."""
        return False

    @property
    def borrowed(self) -> bool:
        """Its tensors are the user's, which a model that works in place must not get."""
        return bool(self.versions)

    def copied(self) -> Self:
        """The same batch in tensors of its own, which a model may change in place."""
        parts = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("versions", "predictions", "others")
        }
        return replace(self, versions=(), **{name: _fresh(part, clone=True) for name, part in parts.items()})

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        """What it is made of: ``input`` or ``target``, a name within the batch, and the tensor."""
        return iter(())

    def contents(self) -> list[bytes]:
        """A digest of each sample, so that one that was seen twice is known; nothing where rows may be no samples.

        One input and one target with a row for each sample are asked for. What else a batch has, or another dimension
        of that length, may belong to it as a whole: indices into it, distances within it, a target for each pair.
        """
        found = list(self.tensors())
        roles, parts = [role for role, _, _ in found], [tensor for _, _, tensor in found]
        others = [t for _, t in leaves((getattr(self, "positional", ()), getattr(self, "keywords", {})))]
        if roles != ["input", "target"] or self._further() or any(t.ndim and len(t) == self.samples for t in others):
            return []
        if any(t.ndim < 1 or len(t) != self.samples or t.is_complex() for t in parts):
            return []
        if (parts[0].ndim > 2 and parts[0].shape[1] == self.samples) or self.samples in parts[1].shape[1:]:
            return []
        if self.samples > 1 and torch.equal(parts[1].flatten().cpu().double(), torch.arange(parts[1].numel()).double()):
            return []
        rows = [part.detach().reshape(len(part), -1).contiguous().view(torch.uint8).cpu().numpy() for part in parts]
        return [_digest(sample) for sample in zip(*rows, strict=True)]

    def _further(self) -> bool:
        """Whether it has anything that is no tensor: lengths, names."""
        given = [*getattr(self, "args", ()), *getattr(self, "kwargs", {}).values(), getattr(self, "batch", None)]
        contained = [part for part in given if not isinstance(part, (bool, int, float))]  # an option of the call
        return any(not isinstance(part, torch.Tensor) for part in _atoms(contained))

    def exchanged(self, old: torch.Tensor, new: torch.Tensor) -> Self:
        """The same batch with one of its `tensors` replaced by another, all in copies.

        Raises:
            NotImplementedError: It lies in a container that cannot be built again.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name in GIVEN}
        return replace(self, **exchanged(given, old, new)).copied()

    def only(self, samples: Sequence[int]) -> Self:
        """Some of its samples, where `contents` knows them, as a batch of its own."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name in GIVEN}
        parts = {name: _fresh(_rows(part, self.samples, samples)) for name, part in given.items()}
        size, versions = _measured(tuple(parts.values()))
        return replace(self, samples=len(samples), size=size, versions=versions, **parts)


@dataclass(frozen=True)
class HeldForward(Held):
    """A call of the model alone: how a loss follows from what it returns is not known.

    Attributes:
        args, kwargs: Of the model's call.
    """

    args: tuple[Any, ...] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        for keys, tensor in leaves((*self.args, self.kwargs)):
            names = keys[1:] if keys[0] == len(self.args) else keys
            yield _role(names), _name("input", names if len(self.args) + len(self.kwargs) > 1 else ()), tensor

    def forward(self, model: nn.Module) -> Any:
        """What the model returns."""
        args, kwargs = _fresh((self.args, self.kwargs), clone=self.borrowed)
        return model(*args, **kwargs)

    def loss(self, model: nn.Module) -> Any:
        """The loss, where the model returns one, else all that it returns."""
        output = self.forward(model)
        found = loss_in(output)
        return output if found is None else found


@dataclass(frozen=True)
class HeldBatch(HeldForward):
    """A batch that a loss can be computed on again.

    Attributes:
        function: The functional loss; `target`, `positional` and `keywords` are its further arguments.
        predictions: From the model's output to the predictions that the loss was given.
        others: Targets that the same loss was given for the same predictions later on, where they are other tensors.
    """

    function: str
    target: torch.Tensor | None = field(repr=False)
    positional: tuple[Any, ...] = field(repr=False)
    keywords: dict[str, Any] = field(repr=False)
    predictions: Path = field(repr=False)
    others: list[torch.Tensor] = field(default_factory=list, repr=False)

    @property
    def mixed(self) -> bool:
        one = self.target
        return one is not None and any(
            (one.dtype, one.device) != (other.dtype, other.device) or not torch.equal(one, other)
            for other in self.others
        )

    def predict(self, model: nn.Module) -> torch.Tensor:
        """What the loss is given, with its graph."""
        return self.predictions(self.forward(model))

    def evaluation(self, model: nn.Module) -> LossCall:
        """The loss under a model, and what it is given."""
        predictions = self.predict(model)
        target, positional, keywords = _fresh((self.target, self.positional, self.keywords))
        loss = loss_again(self.function, predictions, target, *positional, **keywords)
        return LossCall(self.function, loss, predictions, target, positional, keywords, known=True)

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        yield from super().tensors()
        if self.target is not None:
            yield "target", "target", self.target

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
        whole = loss_again(self.function, predictions, target, *positional, **keywords)
        if target is None or not target.ndim or not predictions.ndim:
            return whole, None
        call = LossCall(self.function, whole, predictions, target, positional, keywords, known=True)
        each = losses_per_sample(call, predictions.detach(), target)
        if each is None:
            return whole, None
        scale = whole.detach().mean() / each.nanmean()  # of a sum, or of weights that add up to something else
        return whole, torch.where(scale.isfinite(), each * scale, each)


@dataclass(frozen=True)
class HeldCriterion(HeldForward):
    """A batch whose loss a module of the user's own computes.

    Attributes:
        criterion: The module; `further` are its arguments after the predictions.
        predictions: From the model's output to what the criterion is given first.
    """

    criterion: nn.Module = field(repr=False)
    further: tuple[Any, ...] = field(repr=False)
    predictions: Path = field(repr=False)

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        yield from super().tensors()
        for keys, tensor in leaves(self.further):
            yield "target", _name("target", keys if len(self.further) > 1 else keys[1:]), tensor

    def loss(self, model: nn.Module) -> torch.Tensor:
        """The loss, from a copy of the criterion."""
        found: torch.Tensor = copy.deepcopy(self.criterion).forward(
            self.predictions(self.forward(model)), *_fresh(self.further)
        )
        return found


@dataclass(frozen=True)
class HeldStep(Held):
    """A batch of a trainer, on which the model's own ``training_step`` computes the loss, of validation as well.

    Attributes:
        batch, index: What ``training_step`` is given.
    """

    complete: ClassVar[bool] = True

    batch: Any = field(repr=False)
    index: int

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        pair = isinstance(self.batch, (tuple, list)) and len(self.batch) == 2
        for keys, tensor in leaves(self.batch):
            target = _role(keys) == "target" or (pair and keys[0] == 1)
            yield "target" if target else "input", _name("batch", keys), tensor

    def predict(self, model: nn.Module) -> torch.Tensor:
        """The loss itself: what it was given cannot be seen."""
        return self.loss(model)

    def evaluation(self, model: nn.Module) -> LossCall:
        """The one loss of torch's own within the step, and what it is given.

        Raises:
            NotImplementedError: There is no such loss in it, or there are several.
        """
        with losses_collected() as calls:
            self.loss(model)
        return the_one(calls)

    def losses(self, model: nn.Module) -> torch.Tensor:
        """The loss of the batch, shape (1,): those of its samples cannot be seen."""
        return self.loss(model).reshape(-1)

    def loss(self, model: nn.Module) -> torch.Tensor:
        """The loss of the batch under a copy of the module, with its graph.

        Raises:
            ValueError: ``training_step`` returned no loss.
            NotImplementedError: It does not take what ``validation_step`` is given.
        """
        step: Any = model.training_step
        alone = len(inspect.signature(step).parameters) == 1
        batch = _fresh(self.batch, clone=self.borrowed)
        try:
            found = step(batch) if alone else step(batch, self.index)
        except Exception as error:
            if self.kind == TRAIN_BATCH:
                raise
            raise NotImplementedError(f"training_step cannot be given a validation batch: {error}") from error
        found = found.get("loss") if isinstance(found, Mapping) else found
        if not isinstance(found, torch.Tensor):
            raise ValueError("training_step returned no loss")
        return found


def path_to(call: LossCall, parts: Parts) -> Path | None:
    """How the predictions of a functional loss follow from a model's output; None where it is not known.

    Nor where something else that the loss is given is the model's, too, as a variance is.
    """
    if not call.known:
        return None
    further = [t for _, t in leaves((call.target, call.positional, dict(call.keywords or {}, input=None)))]
    of_the_model = any(t.requires_grad and not t.is_leaf for t in further)
    if of_the_model or (call.name in WITH_VARIANCE and len(further) > 1):
        return None
    return _path(parts, call.input)


def held_batch(
    kind: str, step: int, args: tuple[Any, ...], kwargs: dict[str, Any], call: LossCall, predictions: Path
) -> HeldBatch:
    """A call of the model and of a functional loss, to be computed again."""
    keywords = {k: v for k, v in (call.keywords or {}).items() if k not in ("input", "target")}
    size, versions = _measured((args, kwargs, call.target, call.positional, keywords))
    return HeldBatch(
        kind, step, samples_in(call), size, versions, args, kwargs,
        call.name, call.target, call.positional, keywords, predictions,
    )  # fmt: skip


def held_criterion(
    step: int, args: tuple[Any, ...], kwargs: dict[str, Any], parts: Parts, criterion: nn.Module, given: tuple[Any, ...]
) -> HeldCriterion | None:
    """A call of the model and of the user's criterion; None where the one does not follow from the other."""
    further = given[1:]
    found = _path(parts, given[0]) if given and isinstance(given[0], torch.Tensor) else None
    if found is None or any(t.requires_grad and not t.is_leaf for _, t in leaves(further)):
        return None
    kept, first = _measured((args, kwargs, further)), bare((further, args, kwargs))
    return HeldCriterion(
        TRAIN_BATCH, step, 1 if first is None else len(first), *kept, args, kwargs, criterion, further, found
    )


def held_forward(step: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HeldForward | None:
    """A call of the model alone; None where it is given no tensor."""
    first = bare((args, kwargs))
    kept = _measured((args, kwargs))
    return None if first is None else HeldForward(TRAIN_BATCH, step, len(first), *kept, args, kwargs)


def held_step(step: int, batch: Any, index: int, kind: str = TRAIN_BATCH) -> HeldStep | None:
    """What a trainer is about to give to its step; None where there is no tensor in it."""
    first = bare(batch)
    return None if first is None else HeldStep(kind, step, len(first), *_measured(batch), _fresh(batch), index)


def exchanged(value: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """The same containers with one tensor replaced by another.

    Raises:
        NotImplementedError: It lies in a container of another kind than tuple, list and dictionary.
    """
    found = _each(value, lambda tensor: new if tensor is old else tensor)
    if not any(tensor is new for _, tensor in leaves((found,))):
        raise NotImplementedError("the batch is a container of its own kind, in which nothing can be replaced")
    return found


def _atoms(value: Any) -> Iterator[Any]:
    """All that containers hold, but None."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _atoms(part)
    elif value is not None:
        yield value


def _digest(parts: Sequence[Any]) -> bytes:
    """Of arrays one after the other."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.digest()


def _rows(value: Any, of: int, rows: Sequence[int]) -> Any:
    """Some rows of all tensors that have so many."""
    if isinstance(value, torch.Tensor):
        return value.detach()[list(rows)] if value.ndim and len(value) == of else value
    if isinstance(value, Mapping):
        return {k: _rows(v, of, rows) for k, v in value.items()}
    return type(value)(_rows(v, of, rows) for v in value) if type(value) in (tuple, list) else value


def _measured(value: Any) -> tuple[int, tuple[tuple[torch.Tensor, int | None], ...]]:
    """Bytes of all tensors in a batch, and their versions."""
    tensors = [tensor for _, tensor in leaves(value)]
    return sum(t.numel() * t.element_size() for t in tensors), tuple((t, version_of(t)) for t in tensors)


def parts_of(output: Any) -> Parts:
    """The tensors in a model's output and the keys that lead to them. It keeps none of them alive."""
    return [(keys, weakref.ref(tensor)) for keys, tensor in leaves(output, DEEP)]


def _path(parts: Parts, wanted: torch.Tensor | None) -> Path | None:
    """How the predictions of a loss follow from a model's output: a part of it, possibly in another shape or order."""
    for keys, reference in parts if wanted is not None else ():
        tensor = reference()
        if tensor is None or wanted is None:
            continue
        if tensor is wanted:
            return partial(_at, keys=keys)
        alike = tensor.data_ptr() == wanted.data_ptr() and tensor.numel() == wanted.numel()
        if not alike or tensor.dtype != wanted.dtype:
            continue
        if tensor.is_contiguous() and wanted.is_contiguous():
            return partial(_at, keys=keys, shape=(-1, *wanted.shape[1:]) if wanted.ndim else ())
        order = _order(tensor, wanted)
        if order:
            return partial(_at, keys=keys, order=order)
    return None


def _order(tensor: torch.Tensor, wanted: torch.Tensor) -> tuple[int, ...]:
    """Of the dimensions, as `permute` takes it; none where the one is not the other in another order."""
    orders = itertools.permutations(range(tensor.ndim)) if tensor.ndim == wanted.ndim <= MOST_DIMENSIONS else ()
    for order in orders:
        moved = tensor.permute(order)
        if moved.shape == wanted.shape and moved.stride() == wanted.stride():
            return order
    return ()


def _at(
    output: Any, keys: tuple[Any, ...], shape: tuple[int, ...] | None = None, order: tuple[int, ...] = ()
) -> torch.Tensor:
    for key in keys:
        output = output[key]
    found: torch.Tensor = output.permute(order) if order else output
    return found if shape is None else found.reshape(shape)


def loss_in(output: Any) -> torch.Tensor | None:
    """The loss in what a model returned: ``.loss``, ``["loss"]``, or the output itself if it is a single number."""
    loss = output if isinstance(output, torch.Tensor) else getattr(output, "loss", None)
    if loss is None and isinstance(output, Mapping):
        loss = output.get("loss")
    return loss if isinstance(loss, torch.Tensor) and loss.ndim == 0 and loss.is_floating_point() else None


def _role(keys: tuple[Any, ...]) -> str:
    """What a tensor of a batch is for, as far as the names that lead to it tell."""
    return "target" if any(str(key) in TARGETS for key in keys) else "input"


def _name(base: str, keys: tuple[Any, ...]) -> str:
    return base + "".join(f"[{key!r}]" for key in keys)


def _fresh(value: Any, *, clone: bool = False) -> Any:
    """The same tensors in containers of their own; copies of those made in inference mode, or of all."""

    def fresh(tensor: torch.Tensor) -> torch.Tensor:
        if clone:
            return tensor.detach().clone().requires_grad_(tensor.requires_grad)
        return tensor.clone() if tensor.is_inference() and not torch.is_inference_mode_enabled() else tensor

    return _each(value, fresh)


def _each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Containers of their own with each tensor changed; those of a kind of their own are left as they are."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if type(value) is dict:
        return {k: _each(v, change) for k, v in value.items()}
    return type(value)(_each(v, change) for v in value) if type(value) in (tuple, list) else value
