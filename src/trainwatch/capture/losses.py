"""Training losses: those that were backpropagated, with the factor between what was minimised and what was computed."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainwatch.capture.classes import classes_of, labels_of
from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.interception import LossCall

PATIENCE = 2  # optimiser steps after which a loss that was not backpropagated is taken for validation with gradients
CALM = 3  # steps in which every root was a criterion itself, after which no hook is needed to see it reached
MOST = 1024  # losses between two steps that are kept: those of an optimiser that never steps must not gather
ROOT = "root"


@dataclass(eq=False, slots=True)
class Entry:
    """A loss call with gradients, until it is known what became of it.

    Attributes:
        call: The call without its predictions, which would keep the graph alive.
        classes, labels: What the predictions told, see `trainwatch.capture.classes`.
        terms: See `LossCall`.
        value: The loss, detached.
        count: Samples.
        given: Samples that the model was given before the call, where there is one model and that is known.
        commits: Optimiser steps seen since the call.
        reached: The loss was backpropagated.
        root: It was itself the root of a backward pass.
        factor: d root / d loss where it was sampled; None for 1.
        step: Optimiser steps taken before the call.
        viewed: The call was taken into a validation pass, on the guess that it will not be backpropagated.
        inside: It was computed within a forward pass of the model.
    """

    call: LossCall
    value: torch.Tensor
    count: int
    output: Callable[[], torch.Tensor | None]
    given: int | None = None
    commits: int = 0
    reached: bool = False
    root: bool = False
    factor: torch.Tensor | None = None
    step: int = 0
    viewed: bool = False
    inside: bool = False
    classes: int | None = None
    labels: int = 1
    terms: torch.Tensor | None = None


class StepLosses:
    """Losses of the coming step, and those of the steps since the last flush.

    Attributes:
        pending: Losses with gradients that no step came after yet.
        empty: Batches without any sample so far.
        sample_factor: The coming step is one whose factors are read.
    """

    def __init__(self) -> None:
        self.empty = 0
        self.pending: list[Entry] = []
        self._roots: list[torch.Tensor] = []
        self._calm = 0
        self._rows: dict[str, list[tuple[int, torch.Tensor]]] = defaultdict(list)
        self._factors: list[tuple[str, int, torch.Tensor, torch.Tensor | None]] = []
        self.sample_factor = True

    def add(self, call: LossCall, count: int, step: int, given: int | None = None) -> Entry:
        """Note a loss computed with gradients, after `step` optimiser steps."""
        output = call.output
        bare = call.without_graph()
        entry = Entry(bare, bare.output, count, weakref.ref(output), given, step=step, terms=call.terms)
        entry.classes, entry.labels = classes_of(call), labels_of(call)
        if self._calm < CALM and output.requires_grad:
            self._tell_when_reached(entry, output)
        self.pending.append(entry)
        del self.pending[:-MOST]
        return entry

    def observe(self, call: LossCall, count: int, step: int, given: int | None = None) -> None:
        """Note a loss that the user hands over as a training loss, unless it was seen already."""
        known = next((e for e in self.pending if e.output() is call.output), None)
        if known is not None:
            known.reached = True
            return
        entry = self.add(call, count, step, given)
        entry.reached = True

    def _tell_when_reached(self, entry: Entry, output: torch.Tensor) -> None:
        sample, terms = self.sample_factor, entry.terms

        def reached(gradient: torch.Tensor) -> None:
            entry.reached = True
            if sample:
                entry.factor = gradient if terms is None else gradient * terms

        output.register_hook(reached)

    def backward(self, root: torch.Tensor) -> torch.Tensor | None:
        """Note what is about to be backpropagated (with the scale of AMP taken off).

        Returns:
            It, detached, where it is none of the losses seen.
        """
        for entry in self.pending:
            if entry.output() is root:
                entry.reached = entry.root = True
                return None
        fresh = [entry for entry in self.pending if not entry.reached]
        if fresh and not any(entry.count for entry in fresh):
            return None  # what follows from the loss of no sample is no loss either
        if self._calm >= CALM:  # no hook was set this time: everything pending is taken to be part of it
            for entry in self.pending:
                entry.reached = True
        self._calm = 0
        self._roots.append(root.detach())
        del self._roots[:-MOST]
        return self._roots[-1]

    def mark(self) -> tuple[set[int], int]:
        """What was backpropagated so far, for `retract`."""
        return {id(entry) for entry in self.pending if entry.reached}, len(self._roots)

    def retract(self, mark: tuple[set[int], int]) -> None:
        """What was backpropagated since was none of ours."""
        known, roots = mark
        self.pending = [entry for entry in self.pending if not entry.reached or id(entry) in known]
        self._roots = self._roots[:roots]

    def commit(self, step: int, prefix: str, scale: torch.Tensor | None) -> tuple[list[Entry], list[Entry]]:
        """Give what was backpropagated to an optimiser step.

        Args:
            step: The optimiser step.
            prefix: Put before the names of streams, where there are several optimisers.
            scale: AMP scale of this step, if it was sampled.

        Returns:
            The entries of this step, and those that turned out not to be training losses.
        """
        mine = [e for e in self.pending if e.reached]
        rest = [e for e in self.pending if not e.reached] if len(mine) < len(self.pending) else []
        stale: list[Entry] = []
        self.pending = []
        for entry in rest:
            entry.commits += 1
            (stale if entry.commits >= PATIENCE else self.pending).append(entry)
        self.empty += sum(not entry.count for entry in mine)
        for entry in mine:
            if not entry.count:  # the mean over no sample is no number
                continue
            self._rows[prefix + entry.call.name].append((step, entry.value))
            if self.sample_factor and entry.factor is not None:
                self._factors.append((prefix + entry.call.name, step, entry.factor, scale))
        for root in self._roots:
            self._rows[prefix + ROOT].append((step, root))
        if mine and not rest and not self._roots and all(e.root for e in mine):
            self._calm += 1
        self._roots = []
        self.sample_factor = False
        return mine, stale

    def discard_step(self) -> None:
        """Forget what was backpropagated for a step that was skipped."""
        self.pending = [e for e in self.pending if not e.reached]
        self._roots = []

    def flush(self, reads: DeferredReads, put: Callable[[str, str, NDArray[Any], NDArray[Any]], None]) -> None:
        """Send the losses since the last flush to the host.

        Args:
            reads: Where they are read from the device.
            put: Called with quantity, stream, steps and values.
        """
        rows, self._rows = self._rows, defaultdict(list)
        factors, self._factors = self._factors, []
        self.sample_factor = True
        for stream, values in rows.items():
            steps = np.asarray([step for step, _ in values], np.int64)
            scalars = [v if v.ndim == 0 else v.float().mean() for _, v in values]
            devices = {v.device for v in scalars}
            if len(devices) > 1:
                scalars = [v.to(scalars[0].device) for v in scalars]

            def arrived(arrays: list[NDArray[Any]], stream: str = stream, steps: NDArray[Any] = steps) -> None:
                put("train_loss", stream, *_mean_per_step(steps, arrays[0]))

            reads.read([torch.stack([v.float() for v in scalars] if _mixed(scalars) else scalars)], arrived)
        for stream, step, factor, scale in factors:

            def factor_arrived(arrays: list[NDArray[Any]], stream: str = stream, step: int = step) -> None:
                value = float(np.mean(arrays[0])) / (float(arrays[1]) if len(arrays) > 1 else 1.0)
                put("loss_factor", stream, np.asarray([step]), np.asarray([value]))

            reads.read([factor, *([] if scale is None else [scale])], factor_arrived)


def _mixed(scalars: list[torch.Tensor]) -> bool:
    return len({v.dtype for v in scalars}) > 1


def _mean_per_step(steps: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean over equal neighbouring steps; infinity where any of them is not finite."""
    first = np.flatnonzero(np.r_[True, steps[1:] != steps[:-1]])
    safe = np.where(np.isfinite(values), values, np.inf).astype(np.float64)
    sums = np.add.reduceat(safe, first)
    return steps[first], sums / np.diff(np.r_[first, len(steps)])
