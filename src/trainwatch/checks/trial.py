"""A few steps on one batch, by copies of the model and its optimiser, watched as a run is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trainwatch.capture.interception import heard_by
from trainwatch.capture.run_capture import RunCapture
from trainwatch.checks.batch import BACKWARD, STEP, OneBatch, StepFailed, part
from trainwatch.checks.failure import guarded
from trainwatch.config import Settings
from trainwatch.containment import Containment
from trainwatch.probes.bench import Batch
from trainwatch.probes.isolation import CannotIsolate, twin_with_optimizer
from trainwatch.probes.trainer_proxy import detach_trainer
from trainwatch.record import RunRecord

STEPS = 40  # in which a sound net learns most of a single batch
RATE = 1e-3  # of Adam, where there is no optimiser


def take_steps(
    live: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    record: RunRecord,
    containment: Containment,
    settings: Settings,
    more: Callable[[], bool],
    validation: Batch | None = None,
) -> int:
    """Let copies of model and optimiser take steps on a batch, and record what a run's capture records.

    Args:
        live: The model; it is not touched within `isolation.untouched`.
        optimizer: Its optimiser; it is not touched either.
        batch: The batch.
        record: Where everything goes.
        containment: For faults of the capture.
        settings: How much memory copies may take.
        more: Whether there is time for another step.
        validation: A batch of validation, run through the model afterwards as validation runs it.

    Returns:
        Steps taken.

    Raises:
        StepFailed: A part of the step raised.
        CannotIsolate: The model cannot be copied, or a copy of its optimiser cannot step.
    """
    model, own = twin_with_optimizer(live, optimizer, settings.probe_memory)
    detach_trainer(model, getattr(live, "_trainer", None))
    if not model.training:
        model.train()
    criterion = batch.loss_fn if isinstance(batch, OneBatch) else None
    capture = RunCapture(
        {"default": model}, {"default": own}, record, containment,
        flush_every=STEPS, held_bytes=0, on_step=lambda _: None, criterion=criterion,
    )  # fmt: skip
    taken = 0
    try:
        with heard_by(capture), guarded(model):
            while taken < STEPS and (not taken or more()):
                _step(model, own, batch)
                taken += 1
            if validation is not None:
                _validate(model, validation)
    finally:
        capture.detach()
        capture.flush(last=True)
    return taken


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Take a step as a trainer does, with a closure; a few optimisers know none."""
    closure: Any = functools.partial(_backward, model, optimizer, batch)
    try:
        if "closure" in inspect.signature(type(optimizer).step).parameters:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    except (CannotIsolate, StepFailed):
        raise
    except Exception as error:  # a copy may lack what the original keeps beside its state, as that of LBFGS does
        raise CannotIsolate(f"a copy of the optimiser cannot take a step: {type(error).__name__}: {error}") from error


def _validate(model: nn.Module, batch: Batch) -> None:
    try:
        with torch.no_grad():
            batch.loss(model.eval())
    except StepFailed as failed:
        failed.validating = True
        raise


def _backward(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> torch.Tensor:
    optimizer.zero_grad()
    with part(STEP):
        loss = batch.loss(model)
    with part(BACKWARD):
        loss.backward()
    return loss


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters lie."""
    return next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
