"""The parts that measure a run, and how what they hold comes into its record."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from trainwatch.capture import wiring
from trainwatch.capture.changes import Changes
from trainwatch.capture.classes import ClassCounter
from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.freshness import still_fresh
from trainwatch.capture.gradients import GradientRing
from trainwatch.capture.held import HeldBatches
from trainwatch.capture.losses import Entry, StepLosses
from trainwatch.capture.motion import Motion
from trainwatch.capture.nonfinite import FirstNonFinite, Suspect, finite
from trainwatch.capture.pace import Pace
from trainwatch.capture.passes import PassBook
from trainwatch.capture.path import EVERY, Array
from trainwatch.capture.penalties import Penalties
from trainwatch.capture.ranges import Ranges
from trainwatch.capture.rates import Rates
from trainwatch.capture.run_facts import RunFacts
from trainwatch.capture.scaling import Scaling
from trainwatch.capture.shards import flattened, is_shard
from trainwatch.capture.starts import StartWeights
from trainwatch.capture.target_moments import TargetMoments
from trainwatch.capture.validation import ValidationWatch
from trainwatch.capture.wiring_watch import WiringWatch
from trainwatch.containment import Containment, contained
from trainwatch.record import RunRecord

NEAR = 0.05  # of their length: weights that moved no further ended where they began


class Measuring:
    """What is measured of one run. `RunCapture` tells the parts what happens; `flush` empties them into the record.

    Attributes:
        step: Optimiser steps taken.
        epochs: Times that the training loader was started.
        samples: Training samples seen; an unwatched step counts as many as the watched one before it.
        pace: Which steps are watched.
        delivered: Everything measured before this step has come into the record.
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
        nonfinite: str,
        on_nonfinite: Callable[[Suspect], None],
        primary_validation: str | None,
    ) -> None:
        self.models, self.optimizers = dict(models), dict(optimizers)
        self.record, self.containment = record, containment
        self.step = self.epochs = self.samples = self.delivered = 0
        self.pace = Pace(flush_every)
        self.reads = DeferredReads()
        self.losses = StepLosses()
        self.classes = ClassCounter()
        self.targets = TargetMoments()
        self.book = PassBook(record, self.reads, primary_validation)
        self.validation = ValidationWatch(self.models, self.book)
        self.facts = RunFacts(record, self.models)
        self.rates = Rates(self.optimizers)
        self.scaling = Scaling()
        self.wiring: WiringWatch | None = None
        self.changes = Changes(self.models, self.optimizers)
        self.starts: StartWeights | None = None
        self.ranges = Ranges(self.reads, record.append)
        self.penalties = Penalties({id(p): name for name, p in wiring.parameters_of(self.models).items()})
        self.held = HeldBatches(held_bytes)
        self.nonfinite = FirstNonFinite(nonfinite, self.models, on_nonfinite)
        self._rings: dict[str, GradientRing] = {}
        self._motions: dict[str, Motion] = {}
        self._commits = dict.fromkeys(self.optimizers, 0)
        self._print_next = True
        self._flat = flattened(self.models)
        parameters = list(wiring.parameters_of(self.models).values())
        self._places = index = {id(p): i for i, p in enumerate(parameters)}
        self._parameters = parameters  # held: an id that is free is used again
        self._note_wiring(index)
        self._keep_starts()
        for key, optimizer in self.optimizers.items():
            columns = sorted({index[id(p)] for p in wiring.parameters_in(optimizer) if id(p) in index})
            self._rings[key] = GradientRing([parameters[i] for i in columns], flush_every)
            self._follow(key, [parameters[i] for i in columns], columns)

    @contained("wiring")
    def _note_wiring(self, index: Mapping[int, int]) -> None:
        self.facts.start(self.optimizers, index)
        self.wiring = WiringWatch(self.models, self.optimizers, self.record, self.reads)

    @contained("start weights")
    def _keep_starts(self) -> None:
        self.starts = StartWeights(self.models, self.optimizers)

    @contained("start weights")
    def _note_starts(self) -> None:
        """Before the first step: by now it is known whether an optimiser goes on from an earlier state."""
        if self.starts is not None:
            self.record.set_fact("start_weights", self.starts.facts())

    @contained("motion")
    def _follow(self, key: str, parameters: list[torch.Tensor], columns: list[int]) -> None:
        kinds = [facts["kind"] for facts in self.record.facts.get("parameters", ())]
        if kinds:
            self._motions[key] = Motion(parameters, [kinds[i] == "embedding" for i in columns])

    def flush(self, last: bool = False) -> None:
        """Send what was measured on its way to the host, and write what has arrived into the record.

        Args:
            last: The run is over: wait for the device.
        """
        if last:
            self._end_validation()
        self._look_for_changes()
        self._flush_gradients()
        self._flush_losses()
        self._flush_classes()
        self._flush_targets()
        self._flush_rates()
        self._flush_ranges()
        self._flush_penalties()
        self._flush_motion(last)
        self.reads.read([], functools.partial(self._delivered, self.step))
        self._deliver(last)
        if last:
            self._finish_passes()
            self._note_still()
        self._flush_wiring(last)
        self._deliver(last)  # what the wiring asked for
        self._print_next = True

    def _delivered(self, step: int, _: list[Array]) -> None:
        self.delivered = step

    @contained("validation")
    def _end_validation(self) -> None:
        self._take_late([e for e in self.losses.pending if not e.reached])
        self.validation.close()

    @contained("validation")
    def _finish_passes(self) -> None:
        self.book.finish()

    @contained("gradients")
    def _flush_gradients(self) -> None:
        provenance = {"before_clipping": True, "unscaled": True, "scope": "process"}
        for key, ring in self._rings.items():
            if reason := self._flat or ring.reason:
                ring.flush(self.reads, lambda *_: None, lambda *_: None, self._spent_on_device)
                off = self.record.facts.get("switched_off", {})
                if "grad_norm" not in off:
                    told = dict.fromkeys(("grad_norm", "other_grad_norms"), reason)
                    self.record.set_fact("switched_off", {**off, **told})
                continue
            put, others = (
                functools.partial(self.record.append, quantity, key, provenance=provenance)
                for quantity in ("grad_norm", "other_grad_norms")
            )
            ring.flush(self.reads, put, others, self._spent_on_device)

    def _spent_on_device(self, seconds: float) -> None:
        if seconds:
            self.containment.seconds["gradients, on the device"] += seconds

    @contained("losses")
    def _flush_losses(self) -> None:
        self.losses.flush(self.reads, lambda q, stream, steps, values: self.record.append(q, stream, steps, values))

    @contained("classes")
    def _flush_classes(self) -> None:
        step = max(0, self.step - 1)
        self.classes.flush(
            self.reads,
            lambda key, counts: self.record.append(
                "train_classes", key, step, counts.astype(np.float32), {"uncounted_batches": self.classes.uncounted}
            ),
            lambda size, absent: self.record.append("batches_without_class", size, step, absent.astype(np.float32)),
        )

    @contained("ranges")
    def _flush_targets(self) -> None:
        self.targets.flush(
            self.reads, lambda stream, steps, rows: self.record.append("target_moments", stream, steps, rows)
        )

    @contained("rates")
    def _flush_rates(self) -> None:
        self.rates.flush(self.record)

    @contained("ranges")
    def _flush_ranges(self) -> None:
        self.ranges.flush()

    @contained("penalties")
    def _flush_penalties(self) -> None:
        self.penalties.flush(self.reads, lambda found: self.facts.add_regularisation(penalties=found))

    @contained("motion")
    def _flush_motion(self, last: bool) -> None:
        for key, motion in self._motions.items():

            def put(step: int, motion: Array, weights: Array, key: str = key) -> None:
                self.record.append("motion", key, step, motion, {"every": EVERY})
                self.record.append("weights", key, step, weights, {"every": EVERY})

            guard = functools.partial(self.containment.run, "motion")  # values arrive among those of other parts
            motion.flush(self.reads, put, guard, self._commits[key], last=last)
        reasons = [m.reason for m in self._motions.values() if m.reason]
        known = self.record.facts.get("switched_off", {})
        if reasons and "motion" not in known:
            self.record.set_fact("switched_off", {**known, **dict.fromkeys(("motion", "weights"), reasons[0])})

    @contained("motion")
    def _note_still(self) -> None:
        """Of the weights that ended where they began, note which look as they were drawn."""
        parameters, names = self.record.facts.get("parameters", ()), []
        for key in self.record.keys("motion"):
            series = self.record.series("motion", key)
            assert series is not None
            columns = self.record.facts["optimizers"][key]["parameters"]
            names += [parameters[i]["name"] for i, row in zip(columns, series.values[-1], strict=True) if row[1] < NEAR]
        weights = [p["name"] for p in parameters if p["name"] in names and len(p["shape"]) > 1]
        if weights:
            self.record.set_fact("still", still_fresh(self.models, weights))

    @contained("reads")
    def _deliver(self, wait: bool) -> None:
        self.reads.deliver(wait)

    @contained("wiring")
    def _look_for_changes(self) -> None:
        """Layers may have been replaced, added or thawed. Shards come and go by themselves."""
        if not self._flat and not any(map(is_shard, self._parameters)) and self.changes.changed():
            self.record.set_fact("joined", self.changes.joined(self.step))
            if self.wiring is not None:
                self.wiring.rewired()

    @contained("wiring")
    def _flush_wiring(self, last: bool) -> None:
        if self.wiring is not None:
            self.wiring.flush(last)

    @contained("validation")
    def _take_late(self, entries: list[Entry]) -> None:
        """Losses with gradients that were not backpropagated: validation, or bad batches that the loop skipped."""
        if not all(e.value.device.type == "cpu" and not finite(e.value) for e in entries):
            self.validation.add_late(entries)
