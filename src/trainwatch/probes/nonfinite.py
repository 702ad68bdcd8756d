"""Runs the first batch that made a value NaN or infinite again, on a copy, and names what made it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from trainwatch.probes.isolation import CannotIsolate, twin, untouched
from trainwatch.probes.listening import named_calls
from trainwatch.probes.origins import BACKWARD, FORWARD, PARAMETER, Origin, Tracer
from trainwatch.probes.trainer_proxy import detach_trainer

SHOWN = 16  # indices of samples that are named
GRADIENT = "gradient"  # what a suspect was seen by
NOT_REPRODUCED, NOT_REPLAYED = "not reproduced", "not replayed"


class Batch(Protocol):
    """A batch that can be run again."""

    @property
    def samples(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def intact(self) -> bool: ...

    def copied(self) -> Batch: ...

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]: ...

    def loss(self, model: nn.Module) -> Any: ...


class Suspect(Protocol):
    """A step that went wrong, as `trainwatch.capture.nonfinite.Suspect` states it."""

    @property
    def step(self) -> int: ...

    @property
    def seen(self) -> str: ...

    @property
    def model(self) -> nn.Module | None: ...

    @property
    def name(self) -> str: ...

    @property
    def batches(self) -> Sequence[Batch]: ...

    @property
    def reason(self) -> str: ...

    @property
    def autocast(self) -> torch.dtype | None: ...

    @property
    def scale(self) -> torch.Tensor | None: ...


def investigate(suspect: Suspect, most_bytes: int) -> dict[str, Any]:
    """What is found out about a step, as the fact ``nonfinite`` of the record.

    Args:
        suspect: The step.
        most_bytes: Most memory that copies of batch and model may take, with the gradient where that is what is run.
    """
    fact = {
        "step": suspect.step, "seen": suspect.seen, "phase": NOT_REPLAYED, "module": "", "module_type": "",
        "operation": "", "dtype": "", "inputs": [], "samples": [], "samples_bad": 0, "samples_total": 0,
        "reason": suspect.reason,
    }  # fmt: skip
    for batch in suspect.batches:
        fact["samples_total"] = batch.samples
        try:
            found = _replay(suspect, batch, most_bytes)
        except CannotIsolate as reason:
            fact["reason"] = str(reason)
            continue
        fact |= found
        if found["phase"] not in (NOT_REPRODUCED, NOT_REPLAYED):
            break
    return fact


def _replay(suspect: Suspect, batch: Batch, most_bytes: int) -> dict[str, Any]:
    assert suspect.model is not None
    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    ):
        raise CannotIsolate("several processes train together: one that runs a batch alone may wait for the others")
    if not batch.intact:
        raise CannotIsolate("the batch was changed in place before it could be run again")
    if batch.size > most_bytes:
        raise CannotIsolate(f"a copy of the batch takes {batch.size / 2**20:.0f} MiB, more than probe_memory allows")
    device = next(suspect.model.parameters()).device
    with untouched(device, suspect.model), ExitStack() as stack:
        model = twin(suspect.model, most_bytes - batch.size, further=int(suspect.seen == GRADIENT))
        detach_trainer(model, getattr(suspect.model, "_trainer", None))
        batch = batch.copied()
        calls = stack.enter_context(named_calls(model))
        weights = [(PARAMETER, n, t) for n, t in (*model.named_parameters(), *model.named_buffers())]
        given = [(phase, n, t) for phase, n, t in (*batch.tensors(), *weights) if t.is_floating_point()]
        tracer = Tracer(calls, given)
        try:
            with tracer:
                origin = _run(suspect, batch, model, tracer)
        except CannotIsolate:
            raise
        except Exception as error:  # the user's code, or a device out of memory
            raise CannotIsolate(f"run again, the batch raised {type(error).__name__}: {error}") from error
        if origin is not None:
            return _found(suspect, origin, batch, model)
        if suspect.reason:
            return {"phase": NOT_REPLAYED, "reason": suspect.reason}
        return {"phase": NOT_REPRODUCED, "reason": _why_not(model, suspect)}


def _run(suspect: Suspect, batch: Batch, model: nn.Module, tracer: Tracer) -> Origin | None:
    """Forward and, where the gradient was what went wrong, backward: what made the first value that is not finite."""
    device = next(model.parameters()).device
    lower = {"dtype": suspect.autocast} if suspect.autocast is not None else {"enabled": False}
    with torch.autocast(device.type, **lower):
        result = batch.loss(model)
    found = _first(tracer, [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)])
    if found is not None or suspect.reason or suspect.seen != GRADIENT:
        return found
    if not isinstance(result, torch.Tensor) or not result.requires_grad:
        raise CannotIsolate("no loss came out that could be backpropagated")
    loss = result.mean()
    (loss if suspect.scale is None else loss * suspect.scale).backward()
    return _first(tracer, [p.grad for p in model.parameters() if p.grad is not None and not p.grad.is_sparse])


def _first(tracer: Tracer, tensors: list[torch.Tensor]) -> Origin | None:
    origins = [o for t in tensors if t.is_floating_point() and (o := tracer.origin(t)) is not None]
    return min(origins, key=lambda o: o.order, default=None)


def _found(suspect: Suspect, origin: Origin, batch: Batch, model: nn.Module) -> dict[str, Any]:
    rows = _samples(origin, batch.samples, {tuple(p.shape) for p in model.parameters()})
    return {
        "phase": origin.phase,
        "module": ".".join(part for part in (suspect.name, origin.name) if part),
        "module_type": _type_of_owner(origin, model),
        "operation": origin.operation,
        "dtype": origin.dtype,
        "inputs": [
            {"name": o.name, "min": _number(o.low), "max": _number(o.high), "nonfinite": o.nonfinite, "dtype": o.dtype}
            for o in origin.operands
        ],
        "samples": rows[:SHOWN],
        "samples_bad": len(rows),
        "reason": "",
    }


def _type_of_owner(origin: Origin, model: nn.Module) -> str:
    """Type of the module at work, or of the one that a parameter belongs to; empty where there is none."""
    if origin.name is None or origin.phase not in (FORWARD, BACKWARD, PARAMETER):
        return ""
    owner = origin.name.rpartition(".")[0] if origin.phase == PARAMETER else origin.name
    return type(model.get_submodule(owner)).__name__


def _samples(origin: Origin, samples: int, weights: set[tuple[int, ...]]) -> list[int]:
    """Samples of the batch whose rows are not finite, as far as the result has a row, or several, for each."""
    if origin.rows is None or origin.phase == PARAMETER or len(origin.rows) % samples:
        return []
    if origin.phase == BACKWARD and (origin.shape in weights or origin.shape[::-1] in weights):
        return []  # the gradient of a weight, or as good as
    each = origin.rows.reshape(samples, -1).any(1)
    return [int(i) for i in each.nonzero()]


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _why_not(model: nn.Module, suspect: Suspect) -> str:
    gradients = [p.grad.detach() for p in model.parameters() if p.grad is not None and not p.grad.is_sparse]
    if suspect.scale is None and not all(bool(torch.linalg.vector_norm(g).isfinite()) for g in gradients):
        peak = max(float(g.abs().max()) for g in gradients)
        return f"each entry of the gradient is finite, up to {peak:.2g}, and only the gradient's norm is not"
    random = any(m.training and isinstance(m, _DropoutNd) for m in model.modules())
    return "run again, the batch came out finite" + (
        "; dropout drew other masks than it did in the step itself" if random else ""
    )
