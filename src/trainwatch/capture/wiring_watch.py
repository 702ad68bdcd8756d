"""Watches how a run is wired while it trains: zeroing, modes, what is left out, what is linear."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch

from trainwatch.capture import wiring
from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.frozen import Frozen
from trainwatch.capture.frozen_norms import FrozenNorms
from trainwatch.capture.left_out import LeftOut
from trainwatch.capture.linearity import LinearChains
from trainwatch.capture.training_mode import TrainingMode
from trainwatch.capture.zeroing import Zeroing
from trainwatch.record import RunRecord

EARLY = 4  # backward passes after which parameters that are not the model's are looked at


class WiringWatch:
    """Facts that only the running loop shows, written again whenever twice as many steps were seen.

    Args:
        models: The models watched.
        optimizers: The optimisers by name.
        record: Where the facts go.
        reads: For values that must come from the device.

    Attributes:
        unread: Parameters came that no graph was seen of: the next one is worth a look.
    """

    def __init__(
        self,
        models: wiring.Models,
        optimizers: Mapping[str, torch.optim.Optimizer],
        record: RunRecord,
        reads: DeferredReads,
    ) -> None:
        self._record, self._reads = record, reads
        self._models, self._optimizers = models, optimizers
        self._zeroing = {key: Zeroing(wiring.parameters_in(o)) for key, o in optimizers.items()}
        self._mode = TrainingMode(models, (p for o in optimizers.values() for p in wiring.parameters_in(o)))
        self._left_out = LeftOut(models, optimizers)
        self._frozen_norms = FrozenNorms(models, optimizers)
        places = {id(p): i for i, p in enumerate(wiring.parameters_of(models).values())}
        held = {k: [p for p in wiring.parameters_in(o) if id(p) in places] for k, o in optimizers.items()}
        self._frozen = {key: Frozen({places[id(p)]: p for p in some}) for key, some in held.items()}
        self._uses: dict[int, int] = {}
        self._backwards = self._steps = self._written = 0
        self.unread = False

    def rewired(self) -> None:
        """Parameters came or went, in a model or an optimiser."""
        present = set(map(id, wiring.parameters_of(self._models).values()))
        for key, optimizer in self._optimizers.items():
            held = wiring.parameters_in(optimizer)
            self._zeroing[key].rewired([p for p in held if id(p) in present] or held)
        self._left_out = LeftOut(self._models, self._optimizers)
        self._frozen_norms.rewired()
        self._backwards, self._written, self.unread = 0, 0, True

    def graph_seen(self, root: torch.Tensor, uses: Mapping[int, int]) -> None:
        """Read what the graph behind a loss about to be backpropagated tells.

        Args:
            root: The loss.
            uses: See `wiring.first_uses`.
        """
        self.unread = False
        self._uses.update(uses)
        names = {id(p): name for name, p in wiring.parameters_of(self._models).items()}
        chains = LinearChains(root)
        found: dict[str, Any] = {
            "layers": sorted(names[i] for i in chains.layers if i in names),
            "pairs": sorted([names[a], names[b]] for a, b in chains.pairs if a in names and b in names),
            "nonlinear": chains.nonlinear,
            "opaque": chains.opaque,
        }
        known = self._record.facts.get("linearity", {"layers": [], "pairs": [], "nonlinear": False, "opaque": False})
        merged = {k: sorted([*v, *found[k]]) if isinstance(v, list) else v or found[k] for k, v in known.items()}
        self._record.set_fact("linearity", merged)
        self._frozen_norms.graph_seen(root, chains.opaque)

    def loaded(self) -> None:
        """Weights were loaded into a model: before the first step they are those that training starts from."""
        for frozen in self._frozen.values():
            frozen.loaded()
        if not self._steps:
            self._frozen_norms.begin()

    def backward_starts(self) -> None:
        """A backward pass is about to run."""
        for zeroing in self._zeroing.values():
            zeroing.backward_starts(self._reads)

    def backward_ended(self) -> None:
        """A backward pass of a watched model has run."""
        for zeroing in self._zeroing.values():
            zeroing.backward_ended()
        if self._backwards < EARLY:
            self._backwards += 1
            self._left_out.look()

    def step_begins(self, key: str) -> None:
        """An optimiser is about to step."""
        self._zeroing[key].step_begins()

    def stepped(self, key: str, step: int) -> None:
        """An optimiser has stepped."""
        self._zeroing[key].stepped(step)
        self._mode.stepped(step)
        self._frozen_norms.stepped()
        self._frozen[key].look(step)
        self._steps += 1

    def rests(self) -> None:
        """Steps will go by unwatched."""
        for zeroing in self._zeroing.values():
            zeroing.forget()

    def _write_frozen(self, key: str, held: list[dict[str, Any]]) -> None:
        known = self._record.facts.get("frozen_held", {})
        if held != known.get(key, []):
            self._record.set_fact("frozen_held", {**known, key: held})

    def flush(self, last: bool) -> None:
        """Write the facts, if there is enough news."""
        for key, frozen in self._frozen.items():
            frozen.flush(self._reads, functools.partial(self._write_frozen, key))
        if self._steps < 2 * self._written and not last:
            return
        self._written = max(self._steps, 1)
        self._record.set_fact("zeroing", {key: z.facts() for key, z in self._zeroing.items()})
        self._record.set_fact("training_mode", self._mode.facts())
        self._frozen_norms.flush(self._reads, self._record)
        if self._left_out.anything or "left_out" in self._record.facts:
            self._left_out.look()
            self._record.set_fact("left_out", self._left_out.facts(self._uses))
