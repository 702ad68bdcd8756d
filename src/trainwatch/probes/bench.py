"""What a probe is given: a copy of the model, held batches, and the record that its results go to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from trainwatch.probes.isolation import CannotIsolate, twin, twin_with_optimizer, untouched
from trainwatch.probes.penalised import Penalised, coefficients
from trainwatch.probes.proximal import proximal_step
from trainwatch.probes.trainer_proxy import detach_trainer
from trainwatch.record import RunRecord

COMPUTED_WITH = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
UNIT = 0.05  # a factor on the loss that is nearer to 1 is none
FEW = 4  # batches that a probe is given unless it asks for more
ENOUGH = 64  # samples to look at, where batches are small


class Batch(Protocol):
    """A batch that a loss can be computed on again."""

    @property
    def samples(self) -> int: ...

    def predict(self, model: nn.Module) -> torch.Tensor: ...

    def loss(self, model: nn.Module) -> torch.Tensor: ...

    def losses(self, model: nn.Module) -> torch.Tensor: ...


@runtime_checkable
class Divisible(Batch, Protocol):
    """A batch whose samples can be told apart and had alone."""

    def contents(self) -> list[bytes]: ...

    def only(self, samples: Sequence[int]) -> Batch: ...


class Evaluation(Protocol):
    """What a loss was given."""

    @property
    def input(self) -> torch.Tensor | None: ...

    @property
    def target(self) -> torch.Tensor | None: ...

    @property
    def arguments(self) -> dict[str, Any]: ...


@runtime_checkable
class Exchangeable(Batch, Protocol):
    """A batch of which one tensor can be replaced, and whose loss tells what it is given."""

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]: ...

    def exchanged(self, old: torch.Tensor, new: torch.Tensor) -> Exchangeable: ...

    def evaluation(self, model: nn.Module) -> Any: ...


class Bench:
    """One round of probes.

    Attributes:
        step: Optimiser steps taken.
        record: What is known of the run, and where results go.
        affords: Training steps that there is time for, as far as that is known.
        starts: Name of a parameter or buffer -> what it was before the first step, where that was kept.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Callable[[str], Sequence[Batch]],
        reason: str,
        record: RunRecord,
        step: int,
        most_bytes: int,
        optimizers: Sequence[torch.optim.Optimizer] = (),
        samples_per_step: float = 0.0,
        starts: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.step, self.record, self.affords = step, record, math.inf
        self._samples_per_step, self.starts = samples_per_step, starts or {}
        self._live, self._optimizers = model, optimizers
        self._batches, self._reason, self._most_bytes = batches, reason, most_bytes

    @property
    def memory(self) -> int:
        """Bytes that a probe may take."""
        return self._most_bytes

    @property
    def device(self) -> torch.device:
        """Where the model's parameters lie."""
        return next((t.device for t in (*self._live.parameters(), *self._live.buffers())), torch.device("cpu"))

    def batches(self, kind: str, most: int = FEW) -> Sequence[Batch]:
        """Held batches of a kind, ``train`` or ``val``.

        Raises:
            CannotIsolate: There is none.
        """
        found = self.held(kind, most)
        if not found:
            raise CannotIsolate(self._reason)
        return found

    def enough(self, kind: str) -> Sequence[Batch]:
        """As `batches`, and more of small ones until they come to `ENOUGH` samples.

        Raises:
            CannotIsolate: There is none.
        """
        found = self.batches(kind, ENOUGH)
        wanted = 1 + int(np.searchsorted(np.cumsum([batch.samples for batch in found]), ENOUGH))
        return found[: max(FEW, wanted)]

    def held(self, kind: str, most: int) -> Sequence[Batch]:
        """As `batches`, but none is no obstacle."""
        return self._batches(kind)[:most]

    @contextmanager
    def model(self, *, training: bool = False, further: int = 0, finite: bool = True) -> Iterator[nn.Module]:
        """A fresh copy of the model in the given mode, in a surrounding that leaves no trace.

        Args:
            training: Mode of the copy, less what the run has in evaluation mode while it trains.
            further: Tensors of the size of each parameter that the probe needs besides: gradients, directions.
            finite: Weights must be numbers. A mere look takes them as a run has made them that began with numbers.

        Raises:
            CannotIsolate: The model cannot be copied within the memory for probes, or has weights that are no numbers.
        """
        with untouched(self.device, self._live):
            yield self._prepared(twin(self._live, self._most_bytes, further), training, finite)

    @contextmanager
    def learner(self, *, training: bool = True, further: int = 1) -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
        """A fresh copy of the model together with one of its optimiser, state and rates included, that trains it.

        Args:
            training: See `model`.
            further: See `model`; gradients are one.

        Raises:
            CannotIsolate: They cannot be copied within the memory for probes, or there is not one optimiser.
        """
        if len(self._optimizers) != 1:
            raise CannotIsolate("several optimisers share the model: which of them takes a step is not known")
        with untouched(self.device, self._live):
            copied, optimizer = twin_with_optimizer(self._live, self._optimizers[0], self._most_bytes, further)
            yield self._prepared(copied, training), optimizer

    def train_step(self, batch: Batch, model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        """Let a copy take a step from one batch as the run would take it: its factor on the loss, its clipping.

        What the run adds to its criterion is added here as well, as far as it is known, but of a `Penalised` batch,
        which says by itself whether it has that.

        Returns:
            The loss of the batch before the step.

        Raises:
            CannotIsolate: What the run backpropagates, or how its optimiser steps, cannot be done again.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for parameter in parameters:
            parameter.grad = None
        loss = batch.loss(model).mean()
        ((loss + self._added(batch, model)) * self.step_factor(batch)).backward()
        clip = (self.record.facts.get("regularisation") or {}).get("clipping") or {}
        if clip.get("max_norm"):
            nn.utils.clip_grad_norm_(parameters, clip["max_norm"])
        if clip.get("max_value"):
            nn.utils.clip_grad_value_(parameters, clip["max_value"])
        step_of_copy(optimizer)
        return loss.detach()

    def _added(self, batch: Batch, model: nn.Module) -> torch.Tensor | float:
        added = coefficients(self.record)
        if not added or isinstance(batch, Penalised):
            return 0.0
        return Penalised(batch, added, self.step_factor(batch)).missing(model)

    def step_factor(self, batch: Batch) -> float:
        """As `loss_factor`, but 1 of a trainer's own step: it returns all that is backpropagated, multiplied or not."""
        return 1.0 if getattr(batch, "complete", False) else self.loss_factor(batch)

    def loss_factor(self, batch: Batch) -> float:
        """What the loss of one batch is multiplied by, with as many full batches as make up a step.

        The last batch of an epoch may hold a few samples: the run takes a step from it that is no longer for that.

        Raises:
            CannotIsolate: That is not known.
        """
        factors = [self.record.series("loss_factor", stream) for stream in self.record.keys("loss_factor")]
        if len(factors) > 1:
            raise CannotIsolate("what is backpropagated is a sum of several losses")
        factor = float(factors[0].values[-1]) if factors and factors[0] is not None and len(factors[0]) else 1.0
        if not np.isfinite(factor):
            raise CannotIsolate("the factor on the loss is not finite")
        full = max(batch.samples, *(held.samples for held in self._batches("train")), 1)
        return factor * max(1, round(self._samples_per_step / full))

    def in_unit_of_the_run(self, batches: Sequence[Batch]) -> bool:
        """Whether losses of held batches are those of the criterion: what a trainer's step returns may be a multiple.

        Raises:
            CannotIsolate: What the loss is multiplied by is not known.
        """
        whole = [batch for batch in batches if getattr(batch, "complete", False)]
        return all(abs(self.loss_factor(batch) - 1) < UNIT for batch in whole[:1])

    def _prepared(self, copied: nn.Module, training: bool, finite: bool = True) -> nn.Module:
        if (finite or not self._began_finite()) and not all(
            bool(p.isfinite().all()) for p in copied.parameters() if p.dtype in COMPUTED_WITH
        ):
            raise CannotIsolate("weights of the model are not finite")
        detach_trainer(copied, getattr(self._live, "_trainer", None))
        copied.train(training)
        for name in (self.record.facts.get("training_mode") or {}).get("resting", ()):
            with suppress(AttributeError):
                copied.get_submodule(name).eval()
        return copied

    def _began_finite(self) -> bool:
        """Whether some training loss was a number, as far as is recorded: else no look tells a thing."""
        known = [self.record.series("train_loss", stream) for stream in self.record.keys("train_loss")]
        losses = [series.values for series in known if series is not None and len(series)]
        return not losses or any(bool(np.isfinite(some).any()) for some in losses)


def step_of_copy(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimiser of a copy take its step.

    Raises:
        CannotIsolate: It cannot, as with sparse gradients, or without a closure.
    """
    try:
        optimizer.step()
        proximal_step(optimizer)
    except Exception as error:
        raise CannotIsolate(f"a copy of the optimiser cannot take a step: {type(error).__name__}: {error}") from error
