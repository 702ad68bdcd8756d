"""Tells validation from everything else that computes a loss without training, and cuts it into passes."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from trainwatch.capture.interception import LossCall
from trainwatch.capture.losses import Entry
from trainwatch.capture.passes import Pass, PassBook
from trainwatch.capture.samples import bare, leaves
from trainwatch.capture.wiring import mode_sensitive, named_modules, unwrap

NESTED = 3  # levels of containers in which outputs of the model are looked for
OWN_REFERENCES = 3  # to the last targets: of the call held by the pass, of the local name, of the count itself


class ValidationWatch:
    """Follows the model's forward passes and the loss calls without gradients.

    A loss belongs to validation if it was computed from an output of a watched model: what a teacher or a moving
    average of the weights computes is somebody else's. Where the model's calls cannot be seen (compiled elsewhere,
    or entered by another method than ``forward``), every loss without gradients counts.

    Attributes:
        forwards: Calls of a watched model seen so far.
        stage: Name of the stream that the user or the trainer says is being validated; None for "find out".
    """

    def __init__(self, models: Mapping[str, nn.Module], book: PassBook) -> None:
        self.book = book
        self.stage: str | None = None
        self.forwards = 0
        self.step = 0
        self.idle = True  # nothing but training happened since training resumed
        self._open: Pass | None = None
        self._last_target: torch.Tensor | None = None
        self._targets_vary = False  # the running pass has batches of several tensors
        self._position = 0
        self._source: Any = None
        self._named: str | None = None
        self._outputs: list[weakref.ref[torch.Tensor]] = []  # what the model returned last without gradients
        self._inputs: torch.Tensor | None = None
        self._owed = 0  # forward passes without gradients whose loss has not come yet
        self._sensitive = mode_sensitive(models)
        self._roots = [unwrap(model) for model in models.values()]
        self._inside = {id(root): set(map(id, root.modules())) for root in self._roots}
        self._called: set[int] = set()  # models, by identity, since the last pass
        self._modules = named_modules(models)

    @property
    def batches(self) -> int:
        """Batches of the running pass so far."""
        return len(self._open.values) if self._open is not None else 0

    @property
    def position(self) -> int:
        """How many passes came before the running one since training stopped."""
        return self._position

    def forward_seen(self, model: nn.Module, inputs: Any, output: Any) -> None:
        """A watched model was called without gradients."""
        self.idle = False
        self._called.add(id(model))
        self._owed += 1
        self._inputs = bare(inputs)
        self._outputs = [weakref.ref(t) for _, t in leaves(output, NESTED)]

    def note_inputs(self, batch: Any) -> None:
        """The batch that the next loss is computed on."""
        self._inputs = bare(batch)

    def ours(self, call: LossCall) -> bool:
        """The loss was computed from an output of a watched model."""
        if self.stage is not None or (self.forwards == 0 and self.step > 0):
            return True
        owed, self._owed = self._owed, max(0, self._owed - 1)
        return owed > 0 or (call.input is not None and any(_share(call.input, output()) for output in self._outputs))

    def add(self, call: LossCall, *, with_grad: bool = False) -> None:
        """Take a loss into the running pass, or begin one."""
        self.idle = False
        self._part_from_last(call.target)
        current = self._current()
        if current.values and call.name != current.criterion:
            current.add_other(call)
            return
        current.criterion = call.name
        current.arguments = {k: v for k, v in call.arguments.items() if isinstance(v, (int, float, str))}
        current.add(call)
        if self._inputs is not None and self.book.wants_prints:
            current.add_prints(self._inputs)
        self._inputs = None
        self._note_modes(current, with_grad)

    def add_late(self, entries: list[Entry]) -> None:
        """Losses that had gradients but were never backpropagated: validation without ``no_grad``.

        Their predictions are gone, since keeping them would have kept their graphs: they count batch by batch.
        """
        entries = [e for e in entries if not e.viewed]
        if not entries:
            return
        late = Pass(entries[0].step, self.stage, self._position, self._source)
        late.criterion = entries[0].call.name
        for entry in entries:
            late.add_value(entry.value, entry.count)
            self._note_modes(late, with_grad=True)
        self.book.close(late)

    def abandon(self) -> None:
        """Drop the running pass: it turned out to be training."""
        self._open = None

    def _part_from_last(self, target: torch.Tensor | None) -> None:
        """Without a loader: close the pass where targets of other data begin.

        Whole sets evaluated one after another, or slices of them, are tensors that live on; batches of one pass are
        slices of one tensor, or temporaries that nobody but us holds by now.
        """
        last, self._last_target = self._last_target, target
        if self.stage is not None or self._source is not None or self._open is None or last is None or target is None:
            self._targets_vary = False
            return
        if _whole(last) is _whole(target):
            return
        held_elsewhere = _whole(last) is not last or sys.getrefcount(last) > OWN_REFERENCES
        if held_elsewhere and not self._targets_vary and last.shape[:1] != target.shape[:1]:
            self.close()
        else:
            self._targets_vary = True

    def iterate(self, source: Any, named: str | None) -> None:
        """A loader was started: what follows belongs to another pass than what came before.

        Args:
            source: What tells the loader from others.
            named: Name of the stream that the user gave this loader.
        """
        self.idle = False
        if self.stage is None:
            self.close()
            self._source, self._named = source, named

    def training_resumes(self) -> None:
        """A backward pass begins: the stretch without training is over."""
        self.close()
        self.idle = True
        self._position = 0
        self._last_target = None
        self._source = self._named = None
        self._owed = 0

    def close(self) -> bool:
        """End the running pass, if there is one.

        Returns:
            There was one.
        """
        done, self._open = self._open, None
        if done is None or not done.values:
            return False
        self._position += 1
        self._called.clear()
        self.book.close(done)
        return True

    def _current(self) -> Pass:
        if self._open is None:
            self._open = Pass(self.step, self.stage or self._named, self._position, self._source)
        return self._open

    def _note_modes(self, current: Pass, with_grad: bool) -> None:
        # Of several models those alone that validate: one beside its moving average may be in either mode.
        roots = [root for root in self._roots if id(root) in self._called] or self._roots
        active = [
            (name, norm)
            for name, module, norm in self._sensitive
            if module.training and any(id(module) in self._inside[id(root)] for root in roots)
        ]
        current.train_mode += bool(active)
        current.with_grad += with_grad
        current.modules.update(dict.fromkeys(name for name, _ in active))
        current.norm_in_train_mode |= any(norm for _, norm in active)
        current.root_in_train_mode |= any(root.training for root in roots)
        current.parent_in_train_mode |= any(parent.training for name, _ in active if (parent := self._parent(name)))

    def _parent(self, name: str) -> nn.Module | None:
        """The module that holds the one of this name."""
        return self._modules.get(name.rpartition(".")[0]) if name else None


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor that this one is a slice of, or itself."""
    return tensor if tensor.is_inference() or tensor._base is None else tensor._base


def _share(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    """Both are views of the same memory. One that is gone shares nothing: its memory may be in use again."""
    return other is not None and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
