"""Whether noise frees a run: copies whose weights were shaken once train on beside one that was left as it is (§13)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.evaluated import Losses, evaluating, losses_of, mean_and_error
from trainwatch.probes.isolation import CannotIsolate

KIND = "shaken"
QUANTITIES = ("shaken_loss",)
AT_END = True
MANY, APART = 12, 3  # batches held; every third judges
DRAWS = 2  # of noise: what one of them gains may be luck
SIZE = 0.3  # of the noise in a weight, over the root mean square of its tensor, or over that of usual beginnings
FEWEST, MOST = 100, 200  # steps of each copy
MARKS = 4  # times that the copy that is not shaken is looked at: its lowest counts
LOOKS = 40  # steps that the looks are worth
STEPS = (1 + DRAWS) * FEWEST + LOOKS


def measure(bench: Bench) -> None:
    """Let copies take the run's own steps on some held batches, and look at their losses on others.

    Jin et al., "How to escape saddle points efficiently" (2017): from a saddle, descent after noise goes down, from a
    minimum it comes back. The row of `shaken_loss` is (steps, size of the noise, loss before, the lowest of the copy
    that was not shaken, then for each draw the loss after all steps and the standard error of its difference from that
    lowest).
    Weights with fewer than two dimensions are left alone: gains and biases begin where they should.
    """
    batches = bench.batches("train", MANY)
    judges, source = batches[::APART], [b for i, b in enumerate(batches) if i % APART]
    if not source:
        raise CannotIsolate("one batch is held: steps from it cannot be judged on another")
    steps = max(FEWEST, int(min(MOST, (bench.affords - LOOKS) / (1 + DRAWS))))
    looks = _after(bench, source, judges, steps, None)
    before, lowest = looks[0], min(looks, key=lambda losses: float(np.nan_to_num(losses.mean(), nan=np.inf)))
    row = [float(steps), SIZE, before.mean(), lowest.mean()]
    for draw in range(DRAWS):
        last = _after(bench, source, judges, steps, draw)[-1]
        row += [last.mean(), mean_and_error(last - lowest)[1]]
    bench.record.append("shaken_loss", "held", bench.step, row)


def _after(
    bench: Bench, source: Sequence[Batch], judges: Sequence[Batch], steps: int, draw: int | None
) -> list[Losses]:
    """Losses of the judges before the steps, at marks and at the end, of a copy; shaken where a draw is given."""
    marks = {steps * (k + 1) // MARKS for k in range(MARKS)} if draw is None else {steps}
    with bench.learner() as (model, optimizer):
        if draw is not None:
            shake(model, torch.Generator(bench.device).manual_seed(draw))
        looks = [_look(model, judges)] if draw is None else []
        for i in range(steps):
            bench.train_step(source[i % len(source)], model, optimizer)
            if i + 1 in marks:
                looks.append(_look(model, judges))
    return looks


def shake(model: nn.Module, generator: torch.Generator) -> None:
    """Add noise to each weight of two dimensions or more that trains, in place.

    Its deviation is `SIZE` times the root mean square of the tensor or, where that is larger, 1 / sqrt(inputs of a
    unit), as usual beginnings have it: weights that are nothing would stay so otherwise.
    """
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1 and weight.requires_grad and weight.numel():
                usual = (weight.shape[0] / weight.numel()) ** 0.5
                present = weight.norm() / weight.numel() ** 0.5
                noise = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=weight.dtype)
                weight.add_(noise * present.clamp(min=usual), alpha=SIZE)


def _look(model: nn.Module, batches: Sequence[Batch]) -> Losses:
    with evaluating(model):
        return losses_of(model, batches)
