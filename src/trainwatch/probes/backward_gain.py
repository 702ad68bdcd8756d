"""The factor of each layer on a gradient's way back: what its weight does, and what lies between (§9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from trainwatch.probes.bench import Batch, Bench
from trainwatch.record.series import Array

KIND = "backward_gain"
QUANTITIES = ("backward_gain",)
STEPS = 3
MOST_LAYERS = 512
MOST_CALLS = 256  # of one layer


@dataclass
class Layer:
    """Gradients of the loss at both ends of a module that owns a weight: (root mean square, entries) of each call.

    Attributes:
        at_input: At what it was given, as far as it goes through this module.
        at_output: At what it returned.
    """

    at_input: list[tuple[torch.Tensor, int]] = field(default_factory=list)
    at_output: list[tuple[torch.Tensor, int]] = field(default_factory=list)


def measure(bench: Bench) -> None:
    """On a copy in training mode, one backward pass of the loss of a held batch."""
    batch = bench.batches("train")[0]
    with bench.model(training=True, further=1, finite=False) as model:
        layers = gradients_at(model, batch)
    gains = gains_of(list(layers.values()))
    for name, row in zip(layers, gains, strict=True):
        bench.record.append("backward_gain", name, bench.step, row)
    bench.record.set_fact("backward_gain", {"modules": list(layers)})


def gradients_at(model: nn.Module, batch: Batch) -> dict[str, Layer]:
    """The gradients at the inputs and outputs of all layers, in order of execution."""
    layers: dict[str, Layer] = {}
    with _hooked(model, layers):
        loss = batch.loss(model).mean()
        if loss.requires_grad:
            loss.backward()
    return layers


def gains_of(layers: list[Layer]) -> Array:
    """Factors of each weight and of what lies between it and the next, shape (layers, 2); NaN where not known."""
    if not layers:
        return np.empty((0, 2))
    ends = [end for layer in layers for end in (layer.at_input, layer.at_output)]
    seen = [size for end in ends for size, _ in end]
    sizes = torch.stack(seen).cpu().numpy().astype(float) if seen else np.empty(0)  # one read of the device for all
    owner = np.repeat(np.arange(len(ends)), [len(end) for end in ends])
    entries = np.array([n for end in ends for _, n in end], float)
    sums = np.bincount(owner, sizes**2 * entries, len(ends))
    counts = np.bincount(owner, entries, len(ends))
    with np.errstate(divide="ignore", invalid="ignore"):
        rms = np.sqrt(sums / counts).reshape(-1, 2)
        rms[~(rms > 0)] = np.nan  # nothing came there: no factor is known
        between = np.append(rms[:-1, 1] / rms[1:, 0], np.nan)
        return np.stack([rms[:, 0] / rms[:, 1], between], 1)


@contextmanager
def _hooked(model: nn.Module, layers: dict[str, Layer]) -> Iterator[None]:
    handles: list[Any] = []

    def before(name: str, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if name not in layers:
            if len(layers) >= MOST_LAYERS:
                return None
            layers[name] = Layer()
        given = args[0] if args else None
        if not isinstance(given, torch.Tensor) or not given.requires_grad:
            return None
        own = given.view_as(given)  # what other modules make of the same tensor is not counted
        own.register_hook(lambda grad: _note(layers[name].at_input, grad))
        return (own, *args[1:])

    def after(name: str, output: Any) -> None:
        if name in layers and isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(lambda grad: _note(layers[name].at_output, grad))

    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim > 1 and not isinstance(module, nn.Embedding):
            handles.append(module.register_forward_pre_hook(lambda _, args, name=name: before(name, args)))
            handles.append(module.register_forward_hook(lambda _, __, output, name=name: after(name, output)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _note(end: list[tuple[torch.Tensor, int]], grad: torch.Tensor) -> None:
    """Take down the size of a gradient, which may be so small that its square is not a number of single precision."""
    if len(end) < MOST_CALLS:
        grad = grad.detach().float()
        peak = grad.abs().amax()
        scaled = grad / peak.clamp(min=torch.finfo(torch.float32).tiny)
        end.append((peak * scaled.square().mean().sqrt(), grad.numel()))
