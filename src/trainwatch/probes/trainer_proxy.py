"""What the copy of a LightningModule sees in place of its trainer: plain facts to read, nothing to write."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trainwatch.probes.isolation import CannotIsolate

PLAIN = (bool, int, float, str, type(None), torch.device)
LOGGERS = ("logger", "loggers")


class ReadOnlyTrainer:
    """Numbers, flags and names of the trainer as they are now; whatever else is asked for is refused."""

    def __init__(self, trainer: Any) -> None:
        object.__setattr__(self, "_live", trainer)

    def __getattr__(self, name: str) -> Any:
        if name in LOGGERS:
            return _Muted() if name == "logger" else []
        value = getattr(self._live, name)
        if isinstance(value, PLAIN):
            return value
        raise CannotIsolate(f"training_step uses trainer.{name}, which a copy cannot be given")

    def __setattr__(self, name: str, value: Any) -> None:
        raise CannotIsolate(f"training_step sets trainer.{name}")


class _Muted:
    """Takes any call on any attribute, and does nothing."""

    def __getattr__(self, name: str) -> _Muted:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        return None


def detach_trainer(copied: nn.Module, trainer: Any) -> None:
    """Give the copy of a LightningModule a trainer that it can only read, and make it log nothing.

    Other modules are left as they are.

    Raises:
        CannotIsolate: The module optimises manually: its training_step itself takes steps.
    """
    for module in copied.modules():
        if not any(base.__name__ == "LightningModule" for base in type(module).__mro__):
            continue
        if not getattr(module, "automatic_optimization", True):
            raise CannotIsolate("the module optimises manually: its training_step takes optimiser steps itself")
        stand_ins = {"log": _ignore, "log_dict": _ignore, "_trainer": ReadOnlyTrainer(trainer)}
        for name, stand_in in stand_ins.items():
            object.__setattr__(module, name, stand_in)


def _ignore(*args: Any, **kwargs: Any) -> None:
    """In place of logging."""
