"""A few batches of training and of validation, kept for probes."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable
from typing import Any

from trainwatch.capture.batches import (
    TRAIN_BATCH,
    VAL_BATCH,
    HeldBatch,
    HeldStep,
    held_batch,
    held_step,
    parts_of,
    path_to,
)
from trainwatch.capture.interception import LossCall

SLOTS, MOST_SLOTS = 16, 64  # batches of each kind, fewer where they are large, and more where they are small:
SAMPLES = 512  # as many as make up these
MIXED = "its predictions are compared with several targets at once, as where samples are mixed"
FURTHER = 4  # targets that are kept to see whether they are others
MOST_REFUSED = 8  # batches whose loss cannot be computed again, after which no more are looked at


class HeldBatches:
    """Bounded samples of the batches of a run: any of training alike, the latest of validation."""

    def __init__(self, most_bytes: int) -> None:
        self._reason = "no batch was seen whose loss follows from the model's output"
        self._most = most_bytes // 2  # for each kind
        self._held: dict[str, list[HeldBatch | HeldStep]] = {TRAIN_BATCH: [], VAL_BATCH: []}
        self._draw = random.Random(0)  # our own: the run's random numbers are not touched
        self._newest: tuple[Callable[[], Any], ...] = (_none, _none)  # its predictions, and the batch held last
        self._seen = self._next = self._refused = 0

    @property
    def reason(self) -> str:
        """Why none is held, where none is."""
        mixed = any(b.mixed for b in self._held[TRAIN_BATCH]) and not self.batches(TRAIN_BATCH)
        return MIXED if mixed else self._reason

    def wants_training(self) -> bool:
        """Whether the coming training batch is one of those to be held: each of the run with the same chance."""
        self._seen += 1
        return self._seen > self._next and self._refused < MOST_REFUSED

    def wants_validation(self, seen: int) -> bool:
        """Whether the coming batch of a validation pass is one of those to be held: the first ones are."""
        held = self._held[VAL_BATCH]
        return seen < MOST_SLOTS and seen < (self._slots(held[-1]) if held else SLOTS)

    def batches(self, kind: str) -> list[HeldBatch | HeldStep]:
        """Those of a kind whose tensors are still as they were, none mixed; of validation, those of its latest pass."""
        self._held[kind] = [b for b in self._held[kind] if b.intact]
        latest = max((b.step for b in self._held[kind]), default=0)
        return [b for b in self._held[kind] if (kind == TRAIN_BATCH or b.step == latest) and not b.mixed]

    def offer(
        self, kind: str, step: int, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, call: LossCall
    ) -> None:
        """Hold a batch, if its loss can be computed again."""
        path = path_to(call, parts_of(output))
        if path is not None:
            if kind == VAL_BATCH:  # better than what stood in for it
                self._held[kind] = [b for b in self._held[kind] if isinstance(b, HeldBatch)]
            self._keep(batch := held_batch(kind, step, args, kwargs, call, path))
            self._newest = _none if call.input is None else weakref.ref(call.input), weakref.ref(batch)
            return
        self._refused += 1
        if not any(self._held.values()):
            self._reason = f"it is not known how the predictions of '{call.name}' follow from the model's output"

    def note_loss(self, call: LossCall) -> None:
        """A training loss: where it is given what the batch held last predicted, that has further targets."""
        predictions, batch = (reference() for reference in self._newest)
        if batch is None or predictions is None or call.input is not predictions or call.name != batch.function:
            return
        if call.target is not None and call.target is not batch.target and len(batch.others) < FURTHER:
            batch.others.append(call.target)

    def offer_step(self, kind: str, step: int, batch: Any, index: int) -> None:
        """Hold a batch that a trainer is about to give to ``training_step``, or to ``validation_step``."""
        held = held_step(step, batch, index, kind)
        if held is not None and not (kind == VAL_BATCH and any(isinstance(b, HeldBatch) for b in self._held[kind])):
            self._keep(held)

    def _keep(self, batch: HeldBatch | HeldStep) -> None:
        if not batch.samples:
            return
        if batch.size > self._most:
            self._reason = f"a batch takes {batch.size / 2**20:.0f} MiB, more than probe_memory leaves for it"
            return
        held = self._held[batch.kind]
        slots = self._slots(batch)
        if len(held) < slots:
            held.append(batch)
        elif batch.kind == TRAIN_BATCH:  # in the place of another: any few of those held are as random as all
            held[self._draw.randrange(len(held))] = batch
        else:
            del held[0]
            held.append(batch)
        if batch.kind == TRAIN_BATCH and len(held) >= slots:
            self._next = self._seen + self._skip(slots)
        while sum(b.size for b in held) > self._most:
            held.pop(0)

    def _slots(self, batch: HeldBatch | HeldStep) -> int:
        """How many batches like this one are held; the last one of an epoch may be smaller than all others."""
        samples = max(b.samples for b in (batch, *self._held[batch.kind]))
        wanted = min(max(SLOTS, -(-SAMPLES // samples)), MOST_SLOTS)
        return max(1, min(wanted, self._most // max(1, batch.size)))

    def _skip(self, slots: int) -> int:
        """How many batches pass by until the next one is held: after n batches each is with chance slots / n."""
        n, chance, passed = self._seen, self._draw.random(), 0
        left = 1.0
        while left > chance:
            n, passed = n + 1, passed + 1
            left *= 1 - slots / n
        return passed - 1


def _none() -> None:
    """A reference to nothing."""
