"""The one batch that is tried: what the model is given, and what the loss is given with it."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from trainwatch.capture.batches import TARGETS, exchanged, loss_in
from trainwatch.capture.interception import LossCall, losses_collected, the_one
from trainwatch.capture.samples import leaves
from trainwatch.probes.isolation import CannotIsolate, unwrapped

FORWARD, LOSS, BACKWARD, STEP = "forward", "loss", "backward", "step"
"""Parts of a training step."""


class StepFailed(Exception):
    """A part of the training step raised: the model's fault or the data's, and so a finding, not an error of ours."""

    def __init__(self, phase: str, error: Exception) -> None:
        super().__init__(phase, error)
        self.phase, self.error = phase, error
        self.where: tuple[str, list[list[int]]] = ("", [])  # the innermost module that raised, shapes of its inputs
        self.validating = False
        self.outputs: Any = None  # what the model returned before the loss raised


@contextmanager
def part(phase: str, outputs: Any = None) -> Iterator[None]:
    """Within, what is raised is a failure of this part of the step."""
    try:
        yield
    except (CannotIsolate, StepFailed):
        raise
    except Exception as error:
        failed = StepFailed(phase, error)
        failed.outputs = outputs
        raise failed from error


@dataclass(frozen=True)
class OneBatch:
    """A batch whose loss can be computed under any copy of the model.

    Attributes:
        inputs: What the model is given: a tensor, a sequence of arguments, or a mapping of named ones.
        targets: What the loss is given beside the outputs; None where the model computes its loss itself.
        loss_fn: From (outputs, targets) to the loss; None where the model returns it.
        owner: The model whose method `loss_fn` is, if it is one.
    """

    inputs: Any = field(repr=False)
    targets: Any = field(repr=False)
    loss_fn: Callable[..., Any] | None
    owner: nn.Module | None = None

    @property
    def samples(self) -> int:
        """Length of the first dimension of the first tensor."""
        return next((len(tensor) for _, tensor in leaves((self.inputs,)) if tensor.ndim), 0)

    def forward(self, model: nn.Module, inputs: Any = None) -> Any:
        """What a model makes of the inputs, or of others of the same form."""
        given = own_tensors(self.inputs if inputs is None else inputs)
        with part(FORWARD):
            if isinstance(given, Mapping):
                return model(**given)
            return model(*given) if isinstance(given, (tuple, list)) else model(given)

    def predict(self, model: nn.Module) -> torch.Tensor:
        """The first tensor of numbers in what the model returns, with its graph.

        Raises:
            CannotIsolate: There is none.
        """
        outputs = self.forward(model)
        found = next((tensor for _, tensor in leaves((outputs,)) if tensor.is_floating_point()), None)
        if found is None:
            raise CannotIsolate("the model returns no tensor of floating numbers")
        return found

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        """What it is made of: ``input`` or ``target``, a name, and the tensor."""
        for role, value in (("input", self.inputs), ("target", self.targets)):
            for keys, tensor in leaves((value,)):
                named = isinstance(value, Mapping) and keys[1] in TARGETS
                yield "target" if named else role, role + "".join(f"[{key!r}]" for key in keys[1:]), tensor

    def evaluation(self, model: nn.Module) -> LossCall:
        """The one loss of torch's own within that of the batch, and what it is given.

        Raises:
            NotImplementedError: There is no such loss in it, or there are several.
        """
        with losses_collected() as calls:
            loss = self.loss(model)
        return the_one([call for call in calls if call.output.device == loss.device])  # not those on the host

    def exchanged(self, old: torch.Tensor, new: torch.Tensor) -> OneBatch:
        """The same batch with one of its inputs replaced by another.

        Raises:
            NotImplementedError: It lies in a container that cannot be built again.
        """
        return replace(self, inputs=exchanged(self.inputs, old, new))

    def loss(self, model: nn.Module) -> torch.Tensor:
        """The loss under a model, with its graph."""
        outputs = self.forward(model)
        with part(LOSS, outputs):
            if self.loss_fn is None:
                loss = loss_in(outputs)
                if loss is None:
                    raise TypeError("the model returns no loss (`.loss` or ['loss']), and no loss_fn was given")
                return loss
            loss_fn = types.MethodType(self.loss_fn.__func__, model) if self.owner is not None else self.loss_fn  # type: ignore[attr-defined]
            _try_on_the_host(loss_fn, outputs, self.targets)
            loss = loss_fn(outputs, own_tensors(self.targets))
            if not isinstance(loss, torch.Tensor):
                what = type(loss).__name__
                if isinstance(loss, (tuple, list, Mapping)):
                    raise TypeError(f"loss_fn returns a {what}: let it give back the loss alone")
                raise TypeError(f"loss_fn returns {what}, which cannot be differentiated")
            return loss

    def losses(self, model: nn.Module) -> torch.Tensor:
        """The loss of the batch, shape (1,)."""
        return self.loss(model).mean().reshape(1)


def _try_on_the_host(loss_fn: Callable[..., Any], outputs: Any, targets: Any) -> None:
    """Compute a loss on the CPU first: a label out of range ends the whole process on other devices.

    Raises:
        IndexError: There is such a label.
    """
    if all(tensor.device.type == "cpu" for _, tensor in leaves((outputs, targets))):
        return
    try:
        host = copy.deepcopy(loss_fn).cpu() if isinstance(loss_fn, nn.Module) else loss_fn
        host(own_tensors(outputs, "cpu"), own_tensors(targets, "cpu"))
    except IndexError:
        raise
    except Exception:  # it may need its own device, and is computed there next
        return


def one_batch(batch: Any, loss_fn: Callable[..., Any] | None, model: nn.Module) -> OneBatch:
    """A batch as a loader yields it, taken apart into inputs and targets.

    Args:
        batch: (inputs, targets), or a mapping that holds targets under one of the usual names.
        loss_fn: From (outputs, targets) to the loss.
        model: The live one.

    Raises:
        TypeError: The batch has another form.
        ValueError: It holds no sample.
    """
    owner = model if getattr(loss_fn, "__self__", None) is model else None
    if isinstance(loss_fn, nn.Module):
        loss_fn = copy.deepcopy(loss_fn)
    inputs, targets = batch, None
    if loss_fn is not None:
        inputs, targets = _taken_apart(batch)
    found = OneBatch(inputs, targets, loss_fn, owner and unwrapped(owner))
    if not found.samples:
        raise ValueError("batch must hold at least one sample: its tensors are empty or missing")
    return found


def _taken_apart(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, Mapping):
        names = [name for name in batch if name in TARGETS]
        if len(names) != 1 or len(batch) < 2:
            raise TypeError(
                f"batch must hold its targets under one of {', '.join(TARGETS)}; pass (inputs, targets), or rename one "
                f"of {', '.join(map(str, batch))}"
            )
        others = {name: value for name, value in batch.items() if name != names[0]}
        return (next(iter(others.values())) if len(others) == 1 else others), batch[names[0]]
    if isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch) > 1:
        *inputs, targets = batch
        return (inputs[0] if len(inputs) == 1 else inputs), targets
    raise TypeError(f"batch must be (inputs, targets), a mapping or a DataLoader, got {type(batch).__name__}")


def own_tensors(value: Any, device: str | None = None) -> Any:
    """The same values in tensors of their own, which a model may change in place; on another device if one is named."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().to(device or value.device).requires_grad_(value.requires_grad)
    if isinstance(value, Mapping):
        return {key: own_tensors(each, device) for key, each in value.items()}
    return type(value)(own_tensors(each, device) for each in value) if type(value) in (tuple, list) else value
