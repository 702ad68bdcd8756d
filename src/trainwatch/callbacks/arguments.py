"""Checks of what a user hands over, before anything is hooked: the errors name the input and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from trainwatch.capture.tasks import TASKS
from trainwatch.capture.wiring import parameters_in, parameters_of
from trainwatch.config import SettingsError, rule_named
from trainwatch.diagnosis import Severity

T = TypeVar("T")


def as_named(value: Any, kind: type[T], what: str) -> dict[str, T]:
    """One object, a sequence or a mapping as a dict; one alone is named ``"default"``.

    Raises:
        TypeError: Something in it is not of this kind.
        ValueError: It is empty.
    """
    if isinstance(value, kind):
        return {"default": value}
    if isinstance(value, Mapping):
        found = {str(k): v for k, v in value.items()}
    elif isinstance(value, Sequence) and not isinstance(value, str):
        found = {str(i): v for i, v in enumerate(value)}
    else:
        hint = "; call it first: pass an instance, not the class" if isinstance(value, type) else ""
        raise TypeError(f"{what} must be a {_name(kind)}, or a sequence or dict of them, got {_describe(value)}{hint}")
    for key, entry in found.items():
        if not isinstance(entry, kind):
            raise TypeError(f"{what}[{key!r}] must be a {_name(kind)}, got {_describe(entry)}")
    if not found:
        raise ValueError(f"{what} is empty: pass at least one {_name(kind)}")
    return found


def behind_ddp(model: nn.Module) -> nn.Module:
    """The model inside `DistributedDataParallel`: it is what the wrapper calls, and what validation often calls."""
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    assert isinstance(inner, nn.Module)
    return inner


def unwrapped(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, torch.optim.Optimizer]:
    """The optimisers inside wrappers, such as those that Accelerate makes: they take the steps."""

    def inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        wrapped = getattr(optimizer, "optimizer", None)
        return inner(wrapped) if isinstance(wrapped, torch.optim.Optimizer) else optimizer

    return {name: inner(optimizer) for name, optimizer in optimizers.items()}


def check_arguments(
    models: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    loss_fn: Any,
    on_finding: Any,
    stop_on: Any,
    task: Any,
    class_names: Any = None,
) -> None:
    """Check what is watched and how.

    Raises:
        TypeError: `loss_fn` or `on_finding` cannot be called, or `stop_on` or `class_names` are no sequence.
        ValueError: There is nothing to watch, or a name is unknown.
    """
    parameters = parameters_of(models)
    if not parameters:
        raise ValueError("the model has no parameters: there is nothing to watch")
    if any(is_lazy(p) for p in parameters.values()):
        raise ValueError("the model has lazy parameters without a shape: run one batch through it before watching")
    mine = {id(p) for p in parameters.values()}
    for key, optimizer in optimizers.items():
        if not any(id(p) in mine for p in parameters_in(optimizer)):
            which = "the optimizer" if key == "default" else f"optimizer {key!r}"
            raise ValueError(
                f"{which} holds none of the model's parameters: build it from model.parameters() of the model that is "
                "watched, after the model was moved or copied"
            )
    for name, value in (("loss_fn", loss_fn), ("on_finding", on_finding)):
        if value is not None and not callable(value):
            raise TypeError(f"{name} must be callable, got {_describe(value)}")
        if isinstance(value, type) and issubclass(value, nn.Module):
            raise TypeError(f"{name} must be an instance, got {_describe(value)}; call it first")
    if task is not None and task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    check_stop_on(stop_on)
    check_class_names(class_names)


def check_stop_on(stop_on: Any) -> None:
    """Check codes, names and severities upon which to stop.

    Raises:
        TypeError: `stop_on` is a string, or no sequence.
        SettingsError: It names a rule that does not exist, or remarks.
    """
    if isinstance(stop_on, str):
        raise TypeError(f"stop_on must be a sequence such as ({stop_on!r},), got the string {stop_on!r}")
    if not isinstance(stop_on, Iterable):
        raise TypeError(f"stop_on must be a sequence such as ('error',), got {_describe(stop_on)}")
    for name in stop_on:
        if name == Severity.INFO.value:
            raise SettingsError("stop_on: no run is stopped for a remark; name 'warning', 'error' or a rule")
        if name not in {s.value for s in Severity}:
            rule_named(name)


def check_class_names(class_names: Any) -> None:
    """Check names of classes.

    Raises:
        TypeError: They are a string, or no sequence.
    """
    if isinstance(class_names, str) or (class_names is not None and not isinstance(class_names, Iterable)):
        raise TypeError(f"class_names must be a sequence such as ['cat', 'dog'], got {_describe(class_names)}")


def _name(kind: type) -> str:
    return {"Module": "torch.nn.Module", "Optimizer": "torch.optim.Optimizer"}.get(kind.__name__, kind.__name__)


def _describe(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"{type(value).__name__} {value!r}"[:120]
