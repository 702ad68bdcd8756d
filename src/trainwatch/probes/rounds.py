"""Rounds of probes: runs those that the governor lets run, contains their faults, and accounts for their time."""

from __future__ import annotations

import contextlib
import io
import random
import traceback
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch

from trainwatch.containment import Containment
from trainwatch.probes import (
    activations,
    backward_gain,
    cut_off,
    evaluated,
    frozen_part,
    future,
    gates,
    going_on,
    gradient_noise,
    higher_rate,
    input_importance,
    labels,
    learning_curve,
    lower_rate,
    lower_start,
    one_batch,
    own_curve,
    prior,
    rank,
    reference,
    row_sizes,
    saddle,
    shaken,
    sharpness,
    shift,
    small_changes,
    sparsity,
    standard_inputs,
    standard_targets,
    step_line,
    tuning,
    usual_start,
    votes,
    wider,
    without_regulariser,
)
from trainwatch.probes.bench import Bench
from trainwatch.probes.governor import Governor, Request
from trainwatch.probes.isolation import CannotIsolate

KINDS = (
    activations,
    step_line,
    evaluated,
    one_batch,
    without_regulariser,
    lower_rate,
    reference,
    labels,
    cut_off,
    row_sizes,
    learning_curve,
    own_curve,
    going_on,
    higher_rate,
    lower_start,
    usual_start,
    standard_targets,
    standard_inputs,
    wider,
    prior,
    shift,
    backward_gain,
    gates,
    future,
    gradient_noise,
    rank,
    saddle,
    shaken,
    sharpness,
    tuning,
    frozen_part,
    sparsity,
    small_changes,
    input_importance,
    votes,
)
AT_END = frozenset(probe.KIND for probe in KINDS if getattr(probe, "AT_END", False))  # not before the last round
STEPS: dict[str, int] = {probe.KIND: getattr(probe, "STEPS", 0) for probe in KINDS}  # that a probe is worth
PROBES: dict[str, Callable[[Bench], None]] = {probe.KIND: probe.measure for probe in KINDS}
QUANTITIES: dict[str, tuple[str, ...]] = {probe.KIND: probe.QUANTITIES for probe in KINDS}  # that a probe writes


class Probes:
    """The probes of one run.

    Attributes:
        governor: Decides which may run.
        refused: Kind -> why the last attempt left the model alone.
    """

    def __init__(self, mode: str | Mapping[str, int], containment: Containment) -> None:
        self.governor = Governor(mode, PROBES, AT_END, STEPS)
        self.refused: dict[str, str] = {}
        self._containment = containment

    def run(self, requests: Callable[[], Iterable[Request]], bench: Bench, left: float, *, last: bool = False) -> None:
        """Run what is due and can be paid for.

        Args:
            requests: What the rules ask for, by what is known when it is called: anew after each probe.
            bench: What the probes are given.
            left: Seconds that the budget has left.
            last: It is the round at the end of the run.
        """
        clock = self._containment.clock
        start = clock()
        while kind := self.governor.next(requests(), bench.step, left - (clock() - start), last=last):
            began = clock()
            bench.affords = self.governor.affords(left - (began - start))
            self._containment.run(f"probe {kind}", self._one, kind, bench)
            self.governor.ran(kind, bench.step, clock() - began, whole=kind not in self.refused)

    def _one(self, kind: str, bench: Bench) -> None:
        states = random.getstate(), np.random.get_state()  # libraries that are imported draw from them
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # what a model prints it has printed in the run
                PROBES[kind](bench)
        except (CannotIsolate, NotImplementedError) as reason:
            self.refused[kind] = str(reason)
        except Exception as error:
            if _out_of_memory(error):
                self.refused[kind] = "there was too little memory for the experiment"
            elif _of_the_model(error):
                self.refused[kind] = f"a copy of the model cannot be run: {type(error).__name__}: {error}"
            else:
                raise
        else:
            self.refused.pop(kind, None)
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])

    @property
    def unmeasured(self) -> dict[str, str]:
        """Quantity -> the reason why no probe could measure it."""
        return {q: reason for kind, reason in self.refused.items() for q in QUANTITIES[kind]}


def _of_the_model(error: Exception) -> bool:
    """Whether it was raised within a call of a module: held inputs do not suit it as those of the run did."""
    return any(frame.name == "_call_impl" for frame in traceback.extract_tb(error.__traceback__))


def _out_of_memory(error: Exception) -> bool:
    """Whether a probe asked for more memory than there is, which is no fault of its own."""
    words = ("out of memory", "can't allocate memory")  # of other accelerators, and of the CPU
    told = isinstance(error, RuntimeError) and any(some in str(error) for some in words)
    return told or isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
