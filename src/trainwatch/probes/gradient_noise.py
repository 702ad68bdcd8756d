"""How much of each parameter's gradient is signal: what batches agree on, against how they differ (§9)."""

from __future__ import annotations

import numpy as np
import torch

from trainwatch.probes.bench import Bench
from trainwatch.probes.isolation import CannotIsolate

KIND = "gradient_noise"
QUANTITIES = ("gradient_signal",)
STEPS = 5  # a gradient of a few batches


def measure(bench: Bench) -> None:
    """On a copy in training mode, compare the gradients of the held training batches.

    A row of `gradient_signal` has, for each parameter in the order of the facts, the norm of the mean gradient and the
    root of the variance between batches, summed over its entries (unbiased). Of B batches that agree on nothing, the
    mean's norm is about that root over the root of B.
    """
    batches = bench.batches("train")
    if len(batches) < 2:
        raise CannotIsolate("fewer than two batches are held: their gradients cannot be compared")
    with bench.model(training=True, further=3) as model:
        named = list(model.named_parameters())
        if [name for name, _ in named] != [facts["name"] for facts in bench.record.facts.get("parameters", ())]:
            raise CannotIsolate("the model's parameters are not those that it began with")
        parameters = [p for _, p in named if p.requires_grad]
        spread = torch.zeros(len(parameters), device=bench.device)
        mean: list[torch.Tensor] = []
        seen = [False] * len(parameters)
        for n, batch in enumerate(batches, 1):  # each draws its own random numbers
            found = torch.autograd.grad(batch.loss(model).mean(), parameters, allow_unused=True)
            seen = [s or g is not None for s, g in zip(seen, found, strict=True)]
            gradients = [_plain(p if g is None else g, g is None) for p, g in zip(parameters, found, strict=True)]
            mean = mean or [torch.zeros_like(g) for g in gradients]
            away = torch._foreach_sub(gradients, mean)
            torch._foreach_add_(mean, away, alpha=1 / n)
            # Welford's sum of squares, from one number a parameter: n - 1 of n parts of the distance to the mean.
            spread += torch.stack(torch._foreach_norm(away)).square() * ((n - 1) / n)
        columns = torch.stack([torch.stack(torch._foreach_norm(mean)), (spread / (len(batches) - 1)).sqrt()], 1)
    rows = np.full((len(named), 2), np.nan)
    numbers = columns.cpu().numpy()
    numbers[~np.isfinite(numbers)] = np.inf
    numbers[~np.array(seen)] = np.nan
    rows[[p.requires_grad for _, p in named]] = numbers
    bench.record.append("gradient_signal", "train", bench.step, rows, {"batches": len(batches)})


def _plain(gradient: torch.Tensor, absent: bool) -> torch.Tensor:
    """The gradient as dense single-precision real numbers; zeros in its place where it is absent."""
    dense = gradient.detach().to_dense() if gradient.is_sparse else gradient.detach()
    dense = (torch.view_as_real(dense) if dense.is_complex() else dense).float()
    return torch.zeros_like(dense) if absent else dense
