"""What a probe is given: a copy of the model, held batches, and the record that its results go to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn

from trainwatch.probes.isolation import CannotIsolate, twin, untouched
from trainwatch.probes.trainer_proxy import detach_trainer
from trainwatch.record import RunRecord


class Batch(Protocol):
    """A batch that a loss can be computed on again."""

    @property
    def samples(self) -> int: ...

    def predict(self, model: nn.Module) -> torch.Tensor: ...

    def loss(self, model: nn.Module) -> torch.Tensor: ...


class Bench:
    """One round of probes.

    Attributes:
        step: Optimiser steps taken.
        record: Where results go.
    """

    def __init__(
        self, model: nn.Module, batches: Callable[[str], Sequence[Batch]], reason: str, record: RunRecord, step: int,
        most_bytes: int,
    ) -> None:  # fmt: skip
        self.step, self.record = step, record
        self._live = model
        self._batches, self._reason, self._most_bytes = batches, reason, most_bytes

    @property
    def device(self) -> torch.device:
        """Where the model's parameters lie."""
        return next(self._live.parameters()).device

    def batches(self, kind: str) -> Sequence[Batch]:
        """Held batches of a kind, ``train`` or ``val``.

        Raises:
            CannotIsolate: There is none.
        """
        found = self._batches(kind)
        if not found:
            raise CannotIsolate(self._reason)
        return found

    @contextmanager
    def model(self, *, training: bool = False) -> Iterator[nn.Module]:
        """A fresh copy of the model in the given mode, in a surrounding that leaves no trace.

        Raises:
            CannotIsolate: The model cannot be copied within the memory for probes.
        """
        with untouched(self.device):
            copied = twin(self._live, self._most_bytes)
            detach_trainer(copied, getattr(self._live, "_trainer", None))
            yield copied.train(training)
