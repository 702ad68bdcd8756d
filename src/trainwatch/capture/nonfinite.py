"""Notices the first training loss or gradient that is not finite while batch and weights are still what made it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn

from trainwatch.capture.batches import (
    TRAIN_BATCH,
    HeldForward,
    HeldStep,
    Parts,
    held_batch,
    held_criterion,
    held_forward,
    held_step,
    parts_of,
    path_to,
)
from trainwatch.capture.gradients import GradientRing
from trainwatch.capture.interception import LossCall

PERSISTENT = 5  # steps in a row that a gradient scaler skipped, after which the overflow is more than its search
Batch: TypeAlias = HeldForward | HeldStep
NO_CALL = "no call of the whole model was seen before it"


@dataclass(frozen=True)
class Suspect:
    """A step that went wrong, and what it takes to run it again.

    Attributes:
        step: Optimiser steps taken before it.
        seen: ``loss`` or ``gradient``: where the value was seen.
        model: The model that was called last; None where none was.
        name: Its name where several are watched, else empty.
        batches: What it was called with; several where several losses were computed from it.
        reason: Why there is no batch, or no loss in it; empty where all can be run again.
        autocast: Lower precision that the forward pass ran in, if any.
        scale: Scalar that a gradient scaler multiplied the loss by, if one did.
    """

    step: int
    seen: str
    model: nn.Module | None = field(repr=False)
    name: str
    batches: tuple[Batch, ...] = field(repr=False)
    reason: str
    autocast: torch.dtype | None
    scale: torch.Tensor | None = field(repr=False)


class FirstNonFinite:
    """Follows the batch that is trained on, by reference and until the step, and reports once.

    Attributes:
        keeps: The batch of the coming step is followed.
        looks: Losses and gradients are read at once. On the CPU nobody waits for that.
        trainers_precision: Lower precision that a trainer runs ``training_step`` in, if any.

    Args:
        mode: ``auto`` (look where nobody waits for it, else believe a gradient scaler), ``immediate`` or ``off``.
        models: The models watched, by name.
        report: Takes the first step that went wrong.
    """

    def __init__(self, mode: str, models: Mapping[str, nn.Module], report: Callable[[Suspect], None]) -> None:
        devices = {p.device.type for model in models.values() for p in model.parameters()}
        self.looks = self.keeps = mode == "immediate" or (mode == "auto" and devices == {"cpu"})
        self._off = mode == "off"
        self._device = next(iter(devices), "cpu")
        self._names = {id(model): name if len(models) > 1 else "" for name, model in models.items()}
        self._report = report
        self.trainers_precision: torch.dtype | None = None
        self._autocast: torch.dtype | None = None
        self._within = self._bad_within = False  # a call of a model; a bad loss was seen there
        self._model: nn.Module | None = None
        self._call: tuple[tuple[Any, ...], dict[str, Any], Parts] | None = None
        self._batches: list[Callable[[], Batch | None]] = []
        self._before: Sequence[tuple[torch.Tensor, int]] = ()  # what was given, and its versions then
        self._trainer, self._reason = False, NO_CALL

    def drop(self) -> None:
        """Forget the batch: the optimiser has stepped."""
        self._model, self._call, self._batches, self._before = None, None, [], ()
        self._trainer, self._reason = False, NO_CALL

    @property
    def suspects(self) -> bool:
        """A loss that is not finite was computed within the call that is not over yet."""
        return self._bad_within

    # ------------------------------------------------------------------ what is trained on

    def begins(self, inputs: tuple[Any, ...]) -> None:
        """A model is about to be called."""
        self._within, self._bad_within = True, False
        if torch.is_grad_enabled() and not self._trainer:
            self._before = [(t, t._version) for t in inputs if isinstance(t, torch.Tensor) and not t.is_inference()]

    def called(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, step: int) -> None:
        """A model was called."""
        self._within = False
        if not torch.is_grad_enabled():
            return
        self._note_precision()
        if not self._trainer:
            self._model, self._batches, self._reason = model, [], ""
            self._call = args, kwargs, parts_of(output)
        if self._bad_within:
            self._tell("loss", step)

    def given(self, model: nn.Module, batch: Any, index: int, step: int) -> None:
        """A trainer is about to give a batch to the model's ``training_step``."""
        held = held_step(step, batch, index)
        self._model, self._call, self._trainer, self._autocast = model, None, True, self.trainers_precision
        self._batches, self._reason = [lambda: held], "there is no tensor in the batch"

    def loss(self, call: LossCall, bare: LossCall, step: int) -> None:
        """A loss was computed with gradients; `bare` is the call without its graph."""
        if self._call is None:  # else it is known from the model's call
            self._note_precision()
        again = self._again(call, bare, step)
        if self.looks and not bare.output.ndim and not finite(bare.output):
            if self._within and not self._trainer:
                self._bad_within = True  # the call goes on; its arguments are known at its end
            else:
                self._tell("loss", step, again)

    def _again(self, call: LossCall, bare: LossCall, step: int) -> list[Callable[[], Batch | None]]:
        """The batch with this loss of it, kept beside those with the others."""
        if self._trainer or self._call is None or self._within:
            return self._batches
        args, kwargs, parts = self._call
        if call.module is not None:
            held = held_criterion(step, args, kwargs, parts, call.module, call.given)
            if held is not None:
                self._batches = [lambda: held]  # in place of losses that the criterion computed on its way
                return self._batches
        elif (path := path_to(call, parts)) is not None:
            self._batches.append(partial(held_batch, TRAIN_BATCH, step, args, kwargs, bare, path))
            return self._batches[-1:]
        self._reason = f"it is not known how the predictions of '{call.name}' follow from the model's output"
        return []

    def _note_precision(self) -> None:
        lower = torch.is_autocast_enabled(self._device)
        self._autocast = torch.get_autocast_dtype(self._device) if lower else None

    # ------------------------------------------------------------------ where it went wrong

    def root(self, value: torch.Tensor, step: int) -> None:
        """A loss is about to be backpropagated that is not one of those seen; `value` is it, detached."""
        if self.looks and not finite(value):
            self._tell("loss", step)

    def gradient(self, rings: Iterable[GradientRing], step: int) -> None:
        """A backward pass has run; no scaler is at work, which would see to it itself."""
        if self.looks and not all(ring.finite() for ring in rings):
            self._tell("gradient", step)

    def scaled(self) -> None:
        """A gradient scaler is at work: it will tell."""
        self.keeps = self.keeps or not self._off

    def skipped(self, in_a_row: int, scaler: Any, step: int) -> None:
        """A scaler has skipped a step, and lowered its scale."""
        if self.keeps and in_a_row >= PERSISTENT:
            self._tell("gradient", step, scale=scaler._scale / scaler.get_backoff_factor())

    def _tell(
        self,
        seen: str,
        step: int,
        makers: list[Callable[[], Batch | None]] | None = None,
        *,
        scale: torch.Tensor | None = None,
    ) -> None:
        batches = [batch for make in (self._batches if makers is None else makers) if (batch := make()) is not None]
        reason = "" if batches else self._reason
        if not batches and self._call is not None:
            alone = held_forward(step, *self._call[:2])
            batches = [] if alone is None else [alone]
            reason = reason or "the loss is computed from the model's output by code that cannot be run again"
        if any(t._version != version for t, version in self._before):
            batches, reason = [], "the model's input was changed in place before it could be run again"
        name = self._names.get(id(self._model), "")
        suspect = Suspect(step, seen, self._model, name, tuple(batches), reason, self._autocast, scale)
        self.looks = self.keeps = self._bad_within = False
        self._off = True
        self.drop()
        self._report(suspect)


def finite(value: torch.Tensor) -> bool:
    """Whether all of a tensor is finite. Waits for the device, where it is not the CPU."""
    if value.ndim or value.device.type != "cpu":
        return bool(value.detach().isfinite().all())
    number: Any = value.tolist()  # straight from memory: unlike `item`, it dispatches nothing
    return math.isfinite(number)
