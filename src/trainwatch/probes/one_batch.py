"""Whether a single batch can be fitted: by the run's own steps, and by those of a reference optimiser (§3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from trainwatch.probes.bench import Batch, Bench, step_of_copy
from trainwatch.probes.evaluated import evaluating, losses_of
from trainwatch.probes.rates import highest_rates, set_rates

KIND = "one_batch"
QUANTITIES = ("one_batch_fit",)
STEPS = 100  # that both fits are worth together
AT_END = True
ENOUGH = 40  # steps of each fit
RATE = 3e-3  # of Adam: weights of usual size can be changed within those steps, and deep nets bear it


def measure(bench: Bench) -> None:
    """Let two copies take `ENOUGH` steps on one batch and record its loss in evaluation mode before and after.

    The one goes on as the run does: its optimiser with its state, at the highest rates of the run, in training mode.
    The other is trained by Adam without anything that regularises: in evaluation mode, so that no unit is dropped and
    batch norm keeps its statistics, without decay and clipping.

    A row of `one_batch_fit` is (loss before, after steps of the run, after those of the reference, samples).
    """
    batch = bench.batches("train")[0]
    with bench.learner() as (model, optimizer):
        set_rates(optimizer, highest_rates(bench.record, optimizer))
        before = _level(model, [batch])
        for _ in range(ENOUGH):
            bench.train_step(batch, model, optimizer)
        own = _level(model, [batch])
    with bench.model(further=3) as model:
        trained = [p for p in model.parameters() if p.requires_grad]
        adam = torch.optim.Adam(trained, lr=RATE)
        for _ in range(ENOUGH):
            adam.zero_grad()
            batch.loss(model).mean().backward()
            for parameter in trained:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    parameter.grad = parameter.grad.to_dense()  # Adam takes no others
            step_of_copy(adam)
        reference = _level(model, [batch])
    bench.record.append("one_batch_fit", "train", bench.step, [before, own, reference, batch.samples])


def _level(model: nn.Module, batches: Sequence[Batch]) -> float:
    with evaluating(model):
        return float(losses_of(model, batches).mean())
