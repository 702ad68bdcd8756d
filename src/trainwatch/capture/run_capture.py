"""Hears the events of a training: puts its hooks on, takes them off, and tells how far the run is."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from trainwatch.capture import interception
from trainwatch.capture.forward_events import OFF
from trainwatch.capture.hooks import Hooks
from trainwatch.capture.nonfinite import Suspect
from trainwatch.capture.passes import TRAIN_EVAL
from trainwatch.capture.step_events import StepEvents
from trainwatch.containment import Containment, contained
from trainwatch.record import RunRecord


class RunCapture(StepEvents):
    """Listens to one run: gives what happens to the parts that measure it."""

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
            on_step=on_step,
        )
        self._train_eval_loader = train_eval_loader
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
        """Hear each step once: torch calls hooks again where a subclass's step calls that of its base."""
        optimizer, begun = self.optimizers[key], False

        def begins(*_: Any) -> None:
            nonlocal begun
            begun = True
            self._step_begins(key)

        def ends(*_: Any) -> None:
            nonlocal begun
            if begun:
                begun = False
                self._stepped(key)

        self._optimizer_hooks += [optimizer.register_step_pre_hook(begins), optimizer.register_step_post_hook(ends)]

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

    @property
    def steps_of(self) -> dict[str, int]:
        """Steps that each optimiser took."""
        return dict(self._commits)

    def epochs_seen(self) -> int:
        """Epochs, by the training loader, else by the passes over the primary validation stream."""
        primary = self.book.streams.get(self.book.primary() or "")
        return self.epochs or (primary.passes if primary is not None else 0)

    def progress(self) -> dict[str, Any]:
        """How far the run is, in plain numbers; `resume` takes it."""
        return {"step": self.step, "commits": self.steps_of, "epochs": self.epochs, "samples": self.samples}

    def resume(self, progress: Mapping[str, Any]) -> None:
        """Go on from so far, before the first step."""
        self.step = self.validation.step = int(progress["step"])
        self.epochs, self.samples = int(progress["epochs"]), int(progress["samples"])
        self._commits = {key: int(progress["commits"].get(key, self.step)) for key in self._commits}
        for key, motion in self._motions.items():
            motion.loaded(self._commits[key])

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

    @contained("validation")
    def on_iterate(self, loader: Any) -> None:
        self.pace.wake()
        if self.stage is not None:
            return
        named = TRAIN_EVAL if loader is self._train_eval_loader else None
        self.validation.iterate((id(loader.dataset), type(loader.sampler).__name__), named)
        self._loader = weakref.ref(loader)

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
