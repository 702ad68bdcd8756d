"""What small changes of the inputs do to output and loss: noise, and a step straight against the loss (§4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from trainwatch.probes.bench import Bench
from trainwatch.probes.evaluated import mean_and_error
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.numbers_in import batches_of_numbers, changed, inputs_of

KIND = "small_changes"
QUANTITIES = ("small_changes",)
AT_END = True
STEPS = 16  # a gradient and three forward passes on all held batches
SIZE = 0.1  # of each feature's standard deviation


def measure(bench: Bench) -> None:
    """On a copy in evaluation mode, move all inputs by a tenth of their spread and see what output and loss do.

    Each entry moves by `SIZE` standard deviations of its feature (dimension 1) over the held batches: once up or down
    at random, once the way its gradient points, which is where the loss rises fastest to first order (the fast
    gradient sign method; Goodfellow et al. 2015). A feature that never changes stays. The change of the output counts
    in its own standard deviations per standard deviation of the inputs: 1 for noise on a linear function of
    independent inputs, more for one that turns sharply.

    A row of `small_changes`, under ``val`` or ``train``, is (size, loss, loss under noise, standard error of its
    change, loss after the step, standard error of its change, change of the output under noise, after the step,
    samples).

    Raises:
        CannotIsolate: The inputs are no numbers, or no gradient gets to them.
    """
    kind, batches = batches_of_numbers(bench)
    x = inputs_of(batches)
    spread = _spread(x)
    draw = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    with bench.model() as model:
        # The loops of cuDNN have no gradient in evaluation mode.
        with torch.backends.cudnn.flags(enabled=False):
            uphill = _gradients(model, batches).sign()
        noise = (2 * draw - 1).to(x)
        tried = [_answers(model, changed(batches, x + SIZE * spread * way)) for way in (0 * noise, noise, uphill)]
    (output, before), *moved = tried
    scale = _rms(output - output.mean(0))
    row = [SIZE, mean_and_error(before)[0]]
    for _, losses in moved:
        row += [mean_and_error(losses)[0], mean_and_error(losses - before)[1]]
    row += [_rms(other - output) / (SIZE * scale) if scale > 0 else np.nan for other, _ in moved]
    bench.record.append("small_changes", kind, bench.step, [*row, len(x)])


def _spread(x: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each feature, shape (1, features, 1 ...)."""
    others = [dimension for dimension in range(x.ndim) if dimension != 1]
    return x.std(others, unbiased=False, keepdim=True)


def _gradients(model: nn.Module, batches: Sequence[Any]) -> torch.Tensor:
    """Of the loss by the inputs, shape (samples, ...)."""
    found = []
    for batch in batches:
        x = batch.args[0].detach().clone().requires_grad_()
        (given,) = changed([batch], x)
        loss = given.loss(model).mean()
        gradient = torch.autograd.grad(loss, x, allow_unused=True)[0] if loss.requires_grad else None
        if gradient is None:
            raise CannotIsolate("no gradient of the loss gets to the inputs")
        found.append(gradient)
    return torch.cat(found)


def _answers(model: nn.Module, batches: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What the loss is given, shape (samples, ...), and the loss of each sample (of each batch, failing that)."""
    outputs, losses = [], []
    with torch.no_grad():
        for batch in batches:
            predictions = batch.predict(model)
            whole, each = batch.losses_of(predictions)
            outputs.append(predictions)
            losses.append(whole.reshape(-1) if each is None else each)
    return tuple(torch.cat(parts).float().cpu().numpy().astype(np.float64) for parts in (outputs, losses))  # type: ignore[return-value]


def _rms(values: np.ndarray[Any, Any]) -> float:
    return float(np.sqrt(np.mean(values**2)))
