"""Hears the events of a training and gives each to the part that measures it."""

from __future__ import annotations

import functools
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from trainwatch.capture import interception, wiring
from trainwatch.capture.batches import TARGETS, TRAIN_BATCH, VAL_BATCH, loss_in
from trainwatch.capture.gradients import Versions
from trainwatch.capture.hooks import Hooks
from trainwatch.capture.interception import LossCall, averaged
from trainwatch.capture.losses import Entry
from trainwatch.capture.measuring import Measuring
from trainwatch.capture.motion import Motion
from trainwatch.capture.nonfinite import Suspect, finite
from trainwatch.capture.passes import TRAIN_EVAL
from trainwatch.capture.samples import bare, samples_in
from trainwatch.capture.shards import is_shard
from trainwatch.capture.tasks import DISTANCES, LABELS, read_by_shape
from trainwatch.capture.trained_again import TrainedAgain
from trainwatch.containment import Containment, contained
from trainwatch.record import RunRecord

OFF, TRAIN, VALIDATE = "off", "train", "validate"
"""Stages that a trainer may announce; without one, the events themselves must tell."""


class RunCapture(Measuring):
    """Listens to one run: gives what happens to the parts that measure it.

    Attributes:
        stage: `OFF`, `TRAIN` or `VALIDATE` where a trainer announces it, else None.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        record: RunRecord,
        containment: Containment,
        *,
        flush_every: int,
        held_bytes: int,
        on_step: Callable[[bool], None],
        nonfinite: str = "off",
        on_nonfinite: Callable[[Suspect], None] = lambda _: None,
        train_eval_loader: Any = None,
        primary_validation: str | None = None,
        criterion: Any = None,
    ) -> None:
        super().__init__(
            models,
            optimizers,
            record,
            containment,
            flush_every=flush_every,
            held_bytes=held_bytes,
            nonfinite=nonfinite,
            on_nonfinite=on_nonfinite,
            primary_validation=primary_validation,
        )
        self.stage: str | None = None
        self._on_step = on_step
        self._train_eval_loader = train_eval_loader
        self._known_losses: set[str] = set()
        self._inside: list[LossCall] | None = None  # loss calls within a forward pass of the model, to be viewed
        self._within: list[LossCall] = []  # all of them
        self._recent: deque[Any] = deque(maxlen=4)  # weak references to the losses computed last
        self._inputs: Any = None  # of the model, in training
        self._again = TrainedAgain()
        self._given: tuple[str, tuple[Any, ...], dict[str, Any], Any] | None = None  # a call that a probe may repeat
        self._batch_samples = 0  # of the last watched step
        self._unwatched: Callable[[], None] | None = None  # what to tell of an unwatched call that made a bad loss
        self._forwarded = self._backpropagated = False  # since the last step
        self._doubtful = False  # whether the backward pass that runs is ours
        self._before: Any = None  # gradients and losses before it
        self._trains_in_eval_mode = False
        self._orders_noted = 0
        self._loader: Any = None
        self._train_data: int | None = None  # identity of the dataset that is trained on
        self._hooks = Hooks()
        self._optimizer_hooks: list[Any] = []
        self._attach(criterion)

    @contained("hooks")
    def _attach(self, criterion: Any) -> None:
        for key in self.optimizers:
            self._hook_optimizer(key)
        self._optimizer_hooks.append(register_optimizer_step_post_hook(lambda optimizer, *_: self._other(optimizer)))
        for model in self.models.values():
            self._hooks.before(model, self.on_forward_start)
            self._hooks.after(model, self.on_forward_end)
            self._hooks.loaded(model, self.on_weights_loaded)
        if isinstance(criterion, nn.Module):
            self._hooks.before(criterion, self.on_criterion_start)
            self._hooks.after(criterion, self.on_criterion_end)
        interception.subscribe(self)

    def _hook_optimizer(self, key: str) -> None:
        optimizer = self.optimizers[key]
        self._optimizer_hooks += [
            optimizer.register_step_pre_hook(lambda *_: self._step_begins(key)),
            optimizer.register_step_post_hook(lambda *_: self._stepped(key)),
        ]

    def _other(self, optimizer: torch.optim.Optimizer) -> None:
        """Some optimiser of the process has stepped: one that is not watched may train what a watched one did."""
        known = any(optimizer is one for one in self.optimizers.values())
        if not known and self.stage != OFF and not interception.is_unheard():
            key = self._successor(optimizer)
            if key is not None:
                self._stepped(key)

    @contained("wiring")
    def _successor(self, optimizer: torch.optim.Optimizer) -> str | None:
        key = self.changes.another_stepped(optimizer)
        if key is not None:
            self.optimizers[key] = optimizer
            self._hook_optimizer(key)
            self.facts.succeeded(key, optimizer, self._places)
        return key

    def detach(self) -> None:
        """Take every hook and wrapper off."""
        interception.unsubscribe(self)
        while self._optimizer_hooks:
            self._optimizer_hooks.pop().remove()
        self._inputs = self._given = self._unwatched = None
        self._end_following()
        self._hooks.remove()

    @contained("first non-finite")
    def _end_following(self) -> None:
        self.nonfinite.drop()

    def epochs_seen(self) -> int:
        """Epochs, by the training loader, else by the passes over the primary validation stream."""
        primary = self.book.streams.get(self.book.primary() or "")
        return self.epochs or (primary.passes if primary is not None else 0)

    def progress(self) -> dict[str, Any]:
        """How far the run is, in plain numbers; `resume` takes it."""
        return {"step": self.step, "commits": dict(self._commits), "epochs": self.epochs, "samples": self.samples}

    def resume(self, progress: Mapping[str, Any]) -> None:
        """Go on from so far, before the first step."""
        self.step = self.validation.step = int(progress["step"])
        self.epochs, self.samples = int(progress["epochs"]), int(progress["samples"])
        self._commits = {key: int(progress["commits"].get(key, self.step)) for key in self._commits}
        for key, motion in self._motions.items():
            motion.loaded(self._commits[key])

    # ------------------------------------------------------------------ wiring

    @contained("wiring")
    def _note_order(self, root: torch.Tensor) -> None:
        uses = wiring.first_uses(root)
        self.facts.note_order(uses)
        if self.wiring is not None:
            self.wiring.graph_seen(root, uses)

    @contained("wiring")
    def _watch_backward(self, ended: bool) -> None:
        if self.wiring is None:
            return
        if ended:
            self.wiring.backward_ended()
        else:
            self.wiring.backward_starts()

    def _step_begins(self, key: str) -> None:
        if self.stage != OFF and not self.pace.resting:
            self._watch_step_begin(key)

    @contained("wiring")
    def _watch_step_begin(self, key: str) -> None:
        if self.wiring is not None:
            self.wiring.step_begins(key)

    @contained("wiring")
    def _watch_step(self, key: str, step: int) -> None:
        if self.wiring is not None:
            self.wiring.stepped(key, step)

    @contained("wiring")
    def note_regularisation(self, /, **facts: Any) -> None:
        """Add to the inventory of what regularises the run."""
        self.facts.add_regularisation(**facts)

    @contained("wiring")
    def on_weights_loaded(self, *_: Any) -> None:
        self.facts.note_loading(self.step)
        if self.wiring is not None:
            self.wiring.loaded()
        self._renew_starts()
        self.note_jump()

    @contained("start weights")
    def _renew_starts(self) -> None:
        if self.starts is not None and not self.step:
            self.starts.begin()

    @contained("motion")
    def note_jump(self) -> None:
        """The weights were put elsewhere by hand, which is no motion of the training."""
        for key, motion in self._motions.items():
            motion.loaded(self._commits[key])

    @contained("wiring")
    def on_clip(self, kind: str, limit: float) -> None:
        # Where the gradients still carry AMP's scale, a limit on them says nothing of the gradients themselves.
        scaled = "scaled_" if self.scaling.on_gradients else ""
        self.facts.add_regularisation(clipping={f"max_{scaled}{kind}": limit})

    @contained("validation")
    def on_iterate(self, loader: Any) -> None:
        self.pace.wake()
        if self.stage is not None:
            return
        named = TRAIN_EVAL if loader is self._train_eval_loader else None
        self.validation.iterate((id(loader.dataset), type(loader.sampler).__name__), named)
        self._loader = weakref.ref(loader)

    def _note_train_loader(self) -> None:
        """The loader started last before a training step is the one that is trained on."""
        loader, self._loader = self._loader(), None
        if loader is None:
            return
        if self._train_data is None:
            self._train_data = id(loader.dataset)
            self.note_loader(loader)
        self.epochs += id(loader.dataset) == self._train_data

    @contained("wiring")
    def note_loader(self, loader: Any) -> None:
        """Note size and order of the training data."""
        self.book.train_samples = self.facts.note_loader(loader)

    # ------------------------------------------------------------------ forward and losses

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
            self.validation.forward_seen(inputs, output)
            if len(self.models) == 1:
                self._measure_validation_inputs(inputs)
        for call in inside:
            self._view(call)
        if self.nonfinite.keeps:
            self._follow_call(module, *call_of_model, output)
        if within and self._given is not None:
            self._hold(within[-1], *self._given)
        loss = loss_in(output)
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

    def _note_loss(self, call: LossCall) -> None:
        entry = self.losses.add(call, samples_in(call), self.step)
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

    @contained("first non-finite")
    def _follow_loss(self, call: LossCall, bare: LossCall) -> None:
        self.nonfinite.loss(call, bare, self.step)

    @contained("ranges")
    def _measure_ranges(self, call: LossCall) -> None:
        self.ranges.training(call, bare(self._inputs) if len(self.models) == 1 else None, self.step)

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
        self.losses.observe(call, samples_in(call), self.step)
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

    # ------------------------------------------------------------------ backward and step

    @contained("losses")
    def on_scale(self, scaler: Any, unscaled: Any, scaled: Any) -> None:
        self.scaling.note(scaler, unscaled, scaled)
        self.nonfinite.scaled()

    @contained("losses")
    def on_backward_start(self, root: torch.Tensor) -> None:
        self._doubtful = self.stage is None and not self._forwarded
        if self.pace.resting:
            self._glance_at_root(root)
        if self.stage == OFF or self.pace.resting:
            self._unwatched = None
            return
        if self._doubtful:
            self._before = self._versions(), self.losses.mark()
        first = self.step == 0 and self._orders_noted < len(self.models)  # several models: each has a first backward
        if first and not (self._doubtful and self._places.keys().isdisjoint(wiring.first_uses(root))):
            self._orders_noted += 1
            self._note_order(root)
            self._begin_motion()
            self._note_starts()
        elif self.wiring is not None and self.wiring.unread:
            self._note_order(root)
        self._watch_backward(False)
        if self.penalties.due(self.step):
            self._look_for_penalties(root)
        foreign = self.losses.backward(self.scaling.unscaled(root))
        if foreign is not None and self.nonfinite.looks and self.scaling.scale is None:  # its overflow is the scaler's
            self._follow_root(foreign)

    @contained("first non-finite")
    def _glance_at_root(self, root: torch.Tensor) -> None:
        """Look at what an unwatched step backpropagates, which may be no loss that was seen."""
        scaled = self.scaling.scale is not None  # its overflow is the scaler's
        if self.nonfinite.looks and not scaled and not root.ndim and not finite(root):
            if self._unwatched is not None:
                self._unwatched()
            self.nonfinite.root(root.detach(), self.step)
            self.pace.wake()

    @contained("penalties")
    def _look_for_penalties(self, root: torch.Tensor) -> None:
        self.penalties.look(root)

    @contained("first non-finite")
    def _follow_root(self, root: torch.Tensor) -> None:
        self.nonfinite.root(root, self.step)

    @contained("motion")
    def _begin_motion(self) -> None:
        for key, motion in self._motions.items():
            if not self._commits[key]:
                motion.begin()

    @contained("gradients")
    def on_backward_end(self, root: torch.Tensor) -> None:
        if self.stage == OFF or (self._doubtful and not self._reached_us()):
            return
        self._backpropagated, self._forwarded = True, False
        if not self.pace.resting:
            self._watch_backward(True)
            for ring in self._rings.values():
                ring.measure(self.scaling.scale)
            if self.nonfinite.looks and self.scaling.scale is None:
                self._follow_gradient()
        if not self.validation.idle:
            self._training_resumes()

    @contained("first non-finite")
    def _follow_gradient(self) -> None:
        self.nonfinite.gradient(self._rings.values(), self.step)

    def _reached_us(self) -> bool:
        """Whether a backward pass before which no watched model was called reached a watched parameter all the same.

        If not, it is the training of another net, and so is what was backpropagated.
        """
        if self.pace.resting:
            return self.validation.forwards == 0
        gradients, mark = self._before
        if self._versions() != gradients:
            return True
        self.losses.retract(mark)
        return False

    def _versions(self) -> list[Versions]:
        return [ring.versions() for ring in self._rings.values()]

    @contained("validation")
    def _training_resumes(self) -> None:
        if any(e.viewed and e.reached for e in self.losses.pending):
            self._trains_in_eval_mode = True
            self.validation.abandon()
        self.validation.training_resumes()

    def on_unscale(self) -> None:
        self.scaling.taken_off()

    @contained("losses")
    def on_scaler_update(self, scaler: Any) -> None:
        """If gradients were ready and no step was taken, the scaler skipped it: nothing is wrong with that."""
        self.scaling.updated(skipped=self._backpropagated)
        if self._backpropagated:
            self.losses.discard_step()
            for ring in self._rings.values():
                ring.discard()
            self._backpropagated = False
            self.pace.wake()
            self._follow_skip(scaler)
        facts = {"used": True, "skipped_steps": self.scaling.skipped, "in_a_row": self.scaling.in_a_row}
        if self.record.facts.get("scaler") != facts:
            self.record.set_fact("scaler", facts)

    @contained("first non-finite")
    def _follow_skip(self, scaler: Any) -> None:
        self.nonfinite.skipped(self.scaling.in_a_row, scaler, self.step)

    def _stepped(self, key: str) -> None:
        overflow = getattr(self.optimizers[key], "found_inf", None)  # of a fused one under a scaler: see `Scaling`
        if self.stage != OFF and not self.scaling.kept_from_stepping(overflow):
            self._on_step(bool(self._commit(key, overflow)))

    @contained("steps")
    def _commit(self, key: str, overflow: torch.Tensor | None) -> bool:
        """Give losses and gradients to the step that was just taken; True where a buffer is full."""
        step = self._commits[key]
        self._commits[key] += 1
        self.changes.stepped(key)
        self._forwarded = self._backpropagated = False
        self._given = None
        if self._loader is not None:
            self._note_train_loader()
        first = step >= self.step  # of several optimisers that take this step
        if first and self.pace.resting:
            self.samples += self._batch_samples
        elif first:
            self._batch_samples = 0
        full = False if self.pace.resting else self._commit_watched(key, step, overflow)
        if self.rates.changed(key):
            self._note_rates(key, step)
        if first:
            self.step = self.validation.step = step + 1
            self.pace.stepped()
        return full

    def _commit_watched(self, key: str, step: int, overflow: torch.Tensor | None) -> bool:
        if self.nonfinite.keeps:
            self.nonfinite.drop()
        self._watch_step(key, step)
        self._commit_losses(key, step)
        self._commit_penalties(step)
        full = self._commit_gradients(key, step, overflow)
        if Motion.due(step + 1):
            self._look_at_weights(key, step + 1)
        if self._print_next and self._inputs is not None:
            self._print_next = False
            self._fingerprint()
        return bool(full)

    @contained("losses")
    def _commit_losses(self, key: str, step: int) -> None:
        prefix = f"{key}/" if len(self.optimizers) > 1 else ""
        scale = self.scaling.scale
        scale = scale.clone() if scale is not None and self.losses.sample_factor else None
        mine, stale = self.losses.commit(step, prefix, scale)
        samples = sum(entry.count for entry in mine)
        self._batch_samples += samples
        self.samples += samples
        self._count_classes(mine, step)
        self._keep_targets(mine, prefix, step)
        if stale:
            self._take_late(stale)

    @contained("penalties")
    def _commit_penalties(self, step: int) -> None:
        self.penalties.commit(step, self.scaling.scale)

    @contained("gradients")
    def _commit_gradients(self, key: str, step: int, overflow: torch.Tensor | None) -> bool:
        return self._rings[key].commit(step, overflow)

    @contained("motion")
    def _look_at_weights(self, key: str, updates: int) -> None:
        if key in self._motions:
            self._motions[key].stepped(updates)

    @contained("classes")
    def _count_classes(self, entries: Sequence[Entry], step: int) -> None:
        batch = bare(self._inputs) if len(self.models) == 1 else None
        samples = None if batch is None else len(batch)
        for entry in entries:
            if entry.classes is not None and entry.call.target is not None:
                self.classes.hold(entry.call.sort, entry.classes, entry.labels, entry.call.target, step, samples)

    @contained("ranges")
    def _keep_targets(self, entries: Sequence[Entry], prefix: str, step: int) -> None:
        for entry in entries:
            if entry.call.sort in DISTANCES and entry.call.target is not None:
                self.targets.hold(prefix + entry.call.name, entry.call.target, step)

    @contained("validation")
    def _fingerprint(self) -> None:
        batch = bare(self._inputs)
        if batch is not None:
            self.book.know_training_batch(batch)

    @contained("rates")
    def _note_rates(self, key: str, step: int) -> None:
        self.rates.note(key, step)

    def clip_norm(self, max_norm: float, keys: Sequence[str]) -> torch.Tensor:
        """Clip the gradients of some optimisers together; see `Watch.clip_grad_norm_`."""
        parameters = [p for key in keys for p in self._rings[key].parameters]
        totals = [total for key in keys if (total := self._total(key)) is not None]
        if len(totals) < len(keys):
            norm: Any = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
            norm = norm.full_tensor() if is_shard(norm) else norm
        else:
            norm = torch.linalg.vector_norm(torch.stack([t.to(totals[0].device) for t in totals]))
            torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
            self.on_clip("norm", float(max_norm))
        assert isinstance(norm, torch.Tensor)
        return norm

    @contained("gradients")
    def _total(self, key: str) -> torch.Tensor | None:
        scaled = self.scaling.scale is not None  # the norms are without it, and the gradients may be with it
        return None if scaled or self.pace.resting else self._rings[key].total()

    # ------------------------------------------------------------------ passes and flushes

    @contained("pace")
    def rest(self, seconds: float, debt: float, allowance: float) -> None:
        """Let steps go by unwatched, if the budget asks for it: see `Pace.rest`."""
        self.pace.rest(self.step, seconds, debt, allowance)
        if self.pace.resting:
            self._inputs = None
            for ring in self._rings.values():
                ring.discard()  # between the steps of two optimisers one has a row that none will follow
            self._forget_neighbours()

    @contained("wiring")
    def _forget_neighbours(self) -> None:
        if self.wiring is not None:
            self.wiring.rests()

    @contained("validation")
    def begin_pass(self, name: str | None) -> None:
        """What follows is a validation pass of this name; None leaves it to be found out."""
        self.validation.close()
        self.validation.stage = name

    @contained("validation")
    def end_pass(self) -> bool:
        """End the running validation pass.

        Returns:
            There was one.
        """
        return self.validation.close()


def _without_targets(inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What a model was called with: positional arguments, else named ones without what is to be predicted."""
    return inputs or {name: value for name, value in named.items() if name not in TARGETS}
