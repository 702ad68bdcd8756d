"""What targets of mean 0 and deviation 1 would have brought: two copies that learn from the start (§10)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from trainwatch.probes import standardised
from trainwatch.probes.bench import Bench, Exchangeable
from trainwatch.probes.evaluated import Losses, compared, to_try
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.standardised import Scale, exchangeable, learned, scale_of

KIND = "standard_targets"
QUANTITIES = (KIND,)
AT_END = True
STEPS = standardised.STEPS
COLUMNS = 8  # outputs with a unit each; more are those of one thing, as the pixels of a picture


def measure(bench: Bench) -> None:
    """Let copies learn from the start on held batches in turn: on the targets of the run, and on standardised ones.

    Up to `COLUMNS` columns of targets are standardised one by one, more by a common mean and deviation. Rates rise to
    the highest of the run and fall to nothing; of each copy the look at which validation is best counts. A row of
    `standard_targets` is of training and then of validation batches, in evaluation mode, the mean squared error over
    the variance of the targets: at the end of the run, of the copy on its targets, of the other, standard error of the
    difference of the latter two, and of the first and the last.

    Raises:
        CannotIsolate: What the loss wants is no tensor of the batch that holds numbers to be predicted, or is an input
            as well, or the same for all samples, or there is no validation batch.
    """
    sides = [exchangeable(some) for some in to_try(bench, "what standardised targets would have brought")]
    with bench.model() as model, torch.no_grad():
        targets = [[_target_of(batch, model) for batch in some] for some in sides]
        first = targets[0][0]
        scale = scale_of(targets[0], -1 if first.ndim == 2 and first.shape[1] <= COLUMNS else None)
        if all(torch.equal(some, first[:1].expand_as(some)) for some in targets[0]):
            raise CannotIsolate("the targets are the same for all samples")
        before = [_errors(model, some, scale) for some in sides]
    train, val = (
        [batch.exchanged(old, scale.of(old)) for batch, old in zip(some, wanted, strict=True)]
        for some, wanted in zip(sides, targets, strict=True)
    )
    usual = learned(bench, (sides[0], sides[1]), lambda model, some: _errors(model, some, scale))
    other = learned(bench, (train, val), lambda model, some: _errors(model, some, None))
    bench.record.append(KIND, "held", bench.step, compared(before, usual, other))


def _target_of(batch: Exchangeable, model: nn.Module) -> torch.Tensor:
    """The tensor of a batch that its loss compares predictions with."""
    wanted = batch.evaluation(model).target
    tensors = list(batch.tensors())
    if wanted is None or not wanted.is_floating_point() or not wanted.ndim:
        raise CannotIsolate("what the loss wants are no numbers")
    alike = [(role, t) for role, _, t in tensors if t.numel() == wanted.numel() and t.dtype == wanted.dtype]
    same = [(role, t) for role, t in alike if torch.equal(t.detach().reshape(-1), wanted.detach().reshape(-1))]
    if not same or any(role == "input" for role, _ in same):
        raise CannotIsolate("what the loss wants is no tensor of the batch, or an input as well")
    return same[0][1]


def _errors(model: nn.Module, batches: Sequence[Exchangeable], scale: Scale | None) -> Losses:
    """Squared error of each sample, shape (n,), with predictions and targets brought to a scale before, if any."""
    found = []
    with torch.no_grad():
        for batch in batches:
            call = batch.evaluation(model)
            predictions, wanted = call.input, call.target
            if predictions is None or wanted is None or predictions.shape != wanted.shape:
                raise CannotIsolate("predictions and targets differ in shape")
            apart = (predictions - wanted).reshape(len(wanted), -1)
            deviation = torch.ones(1, 1).to(apart) if scale is None else scale.deviation.reshape(1, -1)
            if deviation.shape[1] not in (1, apart.shape[1]):
                raise CannotIsolate("the loss takes the columns of the targets in another shape")
            found.append((apart / deviation).square().mean(1).float())
    return torch.cat(found).cpu().numpy().astype(np.float64)
