"""What a run tells in its backward passes and steps: gradients, scalers, clipping and what optimisers do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from trainwatch.capture import wiring
from trainwatch.capture.forward_events import OFF, ForwardEvents
from trainwatch.capture.gradients import Versions
from trainwatch.capture.losses import Entry
from trainwatch.capture.motion import Motion
from trainwatch.capture.nonfinite import finite
from trainwatch.capture.samples import bare
from trainwatch.capture.shards import is_shard
from trainwatch.capture.tasks import DISTANCES
from trainwatch.containment import contained


class StepEvents(ForwardEvents):
    """Gives backward passes and steps to the parts that measure them, and losses and gradients to their step."""

    def __init__(self, *measured: Any, on_step: Callable[[bool], None], **options: Any) -> None:
        super().__init__(*measured, **options)
        self._on_step = on_step
        self._batch_samples = 0  # of the last watched step
        self._doubtful = False  # whether the backward pass that runs is ours
        self._before: Any = None  # gradients and losses before it
        self._orders_noted = 0
        self._loader: Any = None
        self._train_data: int | None = None  # identity of the dataset that is trained on

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

    @contained("wiring")
    def _note_order(self, root: torch.Tensor) -> None:
        uses = wiring.first_uses(root)
        self.facts.note_order(uses)
        if self.wiring is not None:
            self.wiring.graph_seen(root, uses)
        self.facts.note_broadcast(root)

    @contained("wiring")
    def _watch_backward(self, ended: bool) -> None:
        if self.wiring is None:
            return
        if ended:
            self.wiring.backward_ended()
        else:
            self.wiring.backward_starts()

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

    @contained("wiring")
    def on_clip(self, kind: str, limit: float) -> None:
        # Where the gradients still carry AMP's scale, a limit on them says nothing of the gradients themselves.
        scaled = "scaled_" if self.scaling.on_gradients else ""
        self.facts.add_regularisation(clipping={f"max_{scaled}{kind}": limit})

    def _step_begins(self, key: str) -> None:
        if self.stage != OFF and not self.pace.resting:
            self._watch_step_begin(key)

    @contained("wiring")
    def _watch_step_begin(self, key: str) -> None:
        if self.wiring is not None:
            self.wiring.step_begins(key)

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

    @contained("wiring")
    def _watch_step(self, key: str, step: int) -> None:
        if self.wiring is not None:
            self.wiring.stepped(key, step)

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

    @contained("losses")
    def _commit_losses(self, key: str, step: int) -> None:
        prefix = f"{key}/" if len(self.optimizers) > 1 else ""
        scale = self.scaling.scale
        scale = scale.clone() if scale is not None and self.losses.sample_factor else None
        mine, stale = self.losses.commit(step, prefix, scale)
        self._look_for_terms(mine)
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
        for entry in entries:
            if entry.classes is not None and entry.call.target is not None:
                self.classes.hold(entry.call.sort, entry.classes, entry.labels, entry.call.target, step, entry.given)

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
