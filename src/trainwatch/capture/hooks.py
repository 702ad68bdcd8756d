"""Hooks that leave no trace in a pickled, copied or exported model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trainwatch.capture.interception import is_hidden

_NOTHING = contextlib.nullcontext()


class Hook:
    """A hook (of forward passes, or of loading weights) that calls back, unless torch looks on: see `is_hidden`.

    A copy or a pickle of the hooked module holds an idle stand-in made of the standard library alone: it works
    where trainwatch is not installed.
    """

    def __init__(self, callback: Callable[..., None]) -> None:
        self.callback = callback

    def __call__(self, module: nn.Module, *event: Any) -> None:
        if not is_hidden():
            self.callback(module, *event)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (_NOTHING, "__exit__")  # takes any arguments, returns None

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _NOTHING.__exit__


class Hooks:
    """The hooks of one watch; `remove` takes all of them off."""

    def __init__(self) -> None:
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def before(self, module: nn.Module, callback: Callable[[nn.Module, Any, Any], None]) -> None:
        """Call back with module, positional and keyword arguments."""
        self._handles.append(module.register_forward_pre_hook(Hook(callback), with_kwargs=True))

    def after(self, module: nn.Module, callback: Callable[[nn.Module, Any, Any, Any], None]) -> None:
        """Call back with module, positional and keyword arguments, and what the forward pass returned."""
        self._handles.append(module.register_forward_hook(Hook(callback), with_kwargs=True))

    def loaded(self, module: nn.Module, callback: Callable[[nn.Module, Any], None]) -> None:
        self._handles.append(module.register_load_state_dict_post_hook(Hook(callback)))

    def remove(self) -> None:
        while self._handles:
            self._handles.pop().remove()
