"""What a run tells in its forward passes: calls of the models, batches and losses."""

from __future__ import annotations

import functools
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trainwatch.capture.batches import TARGETS, TRAIN_BATCH, VAL_BATCH, loss_in
from trainwatch.capture.interception import LossCall, averaged
from trainwatch.capture.losses import Entry
from trainwatch.capture.measuring import Measuring
from trainwatch.capture.nonfinite import finite
from trainwatch.capture.samples import bare, samples_in
from trainwatch.capture.tasks import LABELS, read_by_shape
from trainwatch.capture.trained_again import TrainedAgain
from trainwatch.containment import contained

OFF, TRAIN, VALIDATE = "off", "train", "validate"
"""Stages that a trainer may announce; without one, the events themselves must tell."""


class ForwardEvents(Measuring):
    """Gives calls of the models and losses to the parts that measure them, to training or to validation.

    Attributes:
        stage: `OFF`, `TRAIN` or `VALIDATE` where a trainer announces it, else None.
    """

    def __init__(self, *measured: Any, **options: Any) -> None:
        super().__init__(*measured, **options)
        self.stage: str | None = None
        self._known_losses: set[str] = set()
        self._inside: list[LossCall] | None = None  # loss calls within a forward pass of the model, to be viewed
        self._within: list[LossCall] = []  # all of them
        self._auxiliary = False  # those are terms beside a loss outside, see `_look_for_terms`
        self._returns_loss = False
        self._recent: deque[Any] = deque(maxlen=4)  # weak references to the losses computed last
        self._inputs: Any = None  # of the model, in training
        self._again = TrainedAgain()
        self._given: tuple[str, tuple[Any, ...], dict[str, Any], Any] | None = None  # a call that a probe may repeat
        self._unwatched: Callable[[], None] | None = None  # what to tell of an unwatched call that made a bad loss
        self._forwarded = self._backpropagated = False  # since the last step
        self._trains_in_eval_mode = False

    @contained("losses")  # without which none is gathered until the next forward pass
    def on_forward_start(self, _: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
        self._inside, self._within, self._given = [], [], None
        given = _without_targets(inputs, named)
        if self.stage is None:  # a trainer tells training from validation
            self._again.called(bare(given), trains=torch.is_grad_enabled())
        if torch.is_grad_enabled() and not self.pace.resting:
            self._inputs = given
        if self.nonfinite.keeps and not self.pace.resting:
            self._follow_start(inputs)

    @contained("first non-finite")
    def _follow_start(self, inputs: Any) -> None:
        self.nonfinite.begins(inputs)

    @contained("validation")
    def on_forward_end(self, module: nn.Module, inputs: Any, named: dict[str, Any], output: Any) -> None:
        inside, self._inside = self._inside or [], None
        within, self._within = self._within, []
        if module not in self.models.values():  # a shallow copy shares our hook
            return
        self.validation.forwards += 1
        if self.pace.resting and torch.is_grad_enabled():
            self._pass_by(module, inputs, named, output)
            return
        if self._again.here and self.stage is None:
            return
        kind = self._held_kind()
        self._given = (kind, inputs, named, output) if kind is not None else None
        call_of_model = inputs, named
        inputs = _without_targets(inputs, named)
        if torch.is_grad_enabled():
            self._forwarded = True
        else:
            self.validation.forward_seen(module, inputs, output)
            if len(self.models) == 1:
                self._measure_validation_inputs(inputs)
        for call in inside:
            self._view(call)
        if self.nonfinite.keeps:
            self._follow_call(module, *call_of_model, output)
        if within and self._given is not None:
            self._hold(within[-1], *self._given)
        loss = loss_in(output)
        self._returns_loss |= loss is not None
        if loss is not None and not self._seen(loss) and len(within) != 1:  # one alone is what the model's follows from
            self._take(LossCall("model", loss), within=True)

    @contained("first non-finite")
    def _pass_by(self, module: nn.Module, inputs: Any, named: dict[str, Any], output: Any) -> None:
        """A model was called in an unwatched step. What may be validation with gradients ends the rest."""
        waiting = self._forwarded and not self._backpropagated
        if waiting or not (module.training or self._trains_in_eval_mode):
            self.pace.wake()
        self._forwarded = True
        if self.nonfinite.looks:
            call = functools.partial(self.nonfinite.called, module, inputs, named, output, self.step)
            if self.nonfinite.suspects:
                call()
            if self.stage is None:
                self._unwatched = call
        loss = loss_in(output)
        if loss is not None:
            self._meet(LossCall("model", loss), within=True)

    @contained("first non-finite")
    def _glance(self, call: LossCall) -> None:
        """Look at a training loss of an unwatched step, and at nothing else. One that is not finite ends the rest."""
        if self.nonfinite.looks and samples_in(call) and not call.output.ndim and not finite(call.output):
            if self._inside is not None and self.stage is None:
                self.nonfinite.begins(())
            elif self._unwatched is not None:
                self._unwatched()
            self.nonfinite.loss(call, call.without_graph(), self.step)
            self.pace.wake()

    @contained("first non-finite")
    def _follow_call(self, model: nn.Module, inputs: Any, named: dict[str, Any], output: Any) -> None:
        self.nonfinite.called(model, inputs, named, output, self.step)

    def _held_kind(self) -> str | None:
        """The kind that the batch of the forward pass that just ended is to be held as; None for most."""
        if len(self.models) != 1 or self.stage not in (None, VALIDATE):
            return None
        if torch.is_grad_enabled():  # a trainer tells by `note_batch`
            return TRAIN_BATCH if self.stage is None and self.held.wants_training() else None
        return VAL_BATCH if self.held.wants_validation(self.validation.batches) else None

    @contained("held batches")
    def _hold(self, call: LossCall, kind: str, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        self._given = None
        if kind == VAL_BATCH and self.validation.position != self.book.primary_position():
            return  # another stream, such as the training data once more
        self.held.offer(kind, self.step, inputs, named, output, call)

    def note_batch(self, batch: Any, index: int) -> None:
        """What a trainer is about to give to ``training_step``. Kept until the next batch."""
        self._inputs = batch
        if self.pace.resting:
            if self.nonfinite.looks:
                (model,) = self.models.values()
                self._unwatched = functools.partial(self.nonfinite.given, model, batch, index, self.step)
            return
        if self.nonfinite.keeps:
            self._follow_batch(batch, index)
        if self.held.wants_training():
            self._hold_step(TRAIN_BATCH, batch, index)

    @contained("held batches")
    def _hold_step(self, kind: str, batch: Any, index: int) -> None:
        self.held.offer_step(kind, self.step, batch, index)

    @contained("first non-finite")
    def _follow_batch(self, batch: Any, index: int) -> None:
        (model,) = self.models.values()
        self.nonfinite.given(model, batch, index, self.step)

    def note_validation_batch(self, batch: Any, index: int, *, primary: bool) -> None:
        """What a trainer is about to give to ``validation_step``: the model's call may be out of sight."""
        self._note_inputs(batch)
        if primary and len(self.models) == 1 and self.held.wants_validation(index):
            self._hold_step(VAL_BATCH, batch, index)

    @contained("validation")
    def _note_inputs(self, batch: Any) -> None:
        self.validation.note_inputs(batch)

    @contained("losses")
    def on_criterion_start(self, *_: Any) -> None:
        self._recent.clear()

    @contained("losses")
    def on_criterion_end(self, module: nn.Module, inputs: Any, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and not self._seen(output):
            predictions, target = ([*(v if isinstance(v, torch.Tensor) else None for v in inputs), None, None])[:2]
            call = LossCall(type(module).__name__, output, predictions, target, module=module, given=inputs)
            task = self.record.facts.get("task")
            self.on_loss(read_by_shape(call, task) if task in LABELS else call)

    @contained("losses")
    def on_loss(self, call: LossCall) -> None:
        if self.stage == OFF:
            return
        if self._inside is not None:
            if self._auxiliary:
                self._recent.append(weakref.ref(call.output))
                return
            call = averaged(call)
            self._within.append(call)
        self._meet(call)

    def _meet(self, call: LossCall, within: bool = False) -> None:
        """Take a loss, unless it is one of an unwatched step and finite."""
        if self.pace.resting and call.output.requires_grad and self.stage != VALIDATE:
            self._recent.append(weakref.ref(call.output))  # the module that computed it need not be asked again
            self._glance(call)
            if self.pace.resting:
                return
        self._take(call, within)

    def _take(self, call: LossCall, within: bool = False) -> None:
        self._recent.append(weakref.ref(call.output))
        if self.stage == VALIDATE:
            self._view(call)
        elif call.output.requires_grad:
            self._note_loss(call)
        elif self.stage is None and not self._again.here:
            if self._inside is not None and not within:
                self._inside.append(call)
            elif within or self.validation.ours(call):
                self._view(call)
        if self._given is not None:  # last, when it is known which pass the call belongs to
            self._hold(call, *self._given)

    def _seen(self, loss: torch.Tensor) -> bool:
        """The loss was taken already, from the function that computed it."""
        return any(reference() is loss for reference in self._recent)

    def _batch(self) -> torch.Tensor | None:
        """What the one model was given; of several it is not known whose loss it became."""
        return bare(self._inputs) if len(self.models) == 1 else None

    def _samples_given(self) -> int | None:
        batch = self._batch()
        return None if batch is None else len(batch)

    def _note_loss(self, call: LossCall) -> None:
        entry = self.losses.add(call, samples_in(call), self.step, self._samples_given())
        entry.inside = self._inside is not None
        self._compare_targets(call)
        if self.nonfinite.keeps and entry.count:
            self._follow_loss(call, entry.call)
        if self.ranges.due(self.step):
            self._measure_ranges(call)
        if call.name not in self._known_losses:
            self._known_losses.add(call.name)
            self._note_facts(call, entry.classes)
        evaluating = not any(model.training for model in self.models.values())
        if self.stage is None and evaluating and not self._trains_in_eval_mode:
            entry.viewed = True
            self._view(call)

    @contained("held batches")
    def _compare_targets(self, call: LossCall) -> None:
        self.held.note_loss(call)

    def _look_for_terms(self, entries: list[Entry]) -> None:
        """Whether losses within the forward pass are terms beside one of the same kind outside, by those of a step.

        As of a codebook: they are not what the model is for, and would be mixed up with what is.
        """
        inside = {entry.call.name for entry in entries if entry.inside}
        if inside and not self._returns_loss:
            self._auxiliary |= any(not entry.inside and entry.call.name in inside for entry in entries)

    @contained("first non-finite")
    def _follow_loss(self, call: LossCall, bare: LossCall) -> None:
        self.nonfinite.loss(call, bare, self.step)

    @contained("ranges")
    def _measure_ranges(self, call: LossCall) -> None:
        self.ranges.training(call, self._batch(), self.step)

    @contained("ranges")
    def _measure_validation_inputs(self, inputs: Any) -> None:
        self.ranges.validation(bare(inputs), self.step, self.book.finished)

    @contained("validation")
    def _view(self, call: LossCall) -> None:
        grad = call.output.requires_grad
        self.validation.add(call.without_graph(predictions=True) if grad else call, with_grad=grad)
        if "task" not in self.record.facts:
            self._note_task(call)

    @contained("wiring")
    def _note_task(self, call: LossCall) -> None:
        self.facts.note_task(call, bare(self._inputs))

    @contained("losses")
    def observe_train(self, call: LossCall) -> None:
        """A training loss that the user hands over."""
        if self.pace.resting:
            return
        call = read_by_shape(call, self.record.facts.get("task"))
        self.losses.observe(call, samples_in(call), self.step, self._samples_given())
        self._note_facts(call, None)

    @contained("validation")
    def observe_validation(self, call: LossCall) -> None:
        """A validation loss that the user hands over."""
        if not self._seen(call.output):
            self._view(read_by_shape(call, self.record.facts.get("task")))

    @contained("wiring")
    def _note_facts(self, call: LossCall, classes: int | None) -> None:
        self.facts.note_loss(call, classes)
        self.facts.note_task(call, bare(self._inputs))


def _without_targets(inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What a model was called with: positional arguments, else named ones without what is to be predicted."""
    return inputs or {name: value for name, value in named.items() if name not in TARGETS}
