"""Whether the loss depends on layers that no gradient reaches: something cuts them off on the way back (§11)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.symptoms.cut_off import without_gradient

KIND = "cut_off"
QUANTITIES = (KIND,)
STEPS = 4  # a few forward passes of one batch
MOST = 16  # layers that are looked at


def measure(bench: Bench) -> None:
    """Change the weights of each layer without a gradient, in a copy in evaluation mode, and see what the loss does.

    A row of `cut_off`, under the layer's name, is the change of the loss of a held batch over the loss, and how many
    entries the weights have.

    Raises:
        CannotIsolate: There is no held batch, or no gradient at all in evaluation mode.
    """
    absent = bench.record.memo(without_gradient)
    batch = bench.batches("train", 1)[0]
    with bench.model() as model, torch.backends.cudnn.flags(enabled=False):  # its loops have no gradient in this mode
        named = [(name, p) for name, p in model.named_parameters() if name in absent and p.requires_grad]
        loss = batch.loss(model)
        if not loss.requires_grad:
            raise CannotIsolate("in evaluation mode no gradient reaches any weight")
        found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True) if named else ()
        before, owners = float(loss.detach()), dict[str, list[nn.Parameter]]()
        for (name, parameter), gradient in zip(named, found, strict=True):
            if gradient is None:  # sparse gradients are there, and not measured while a run trains
                owners.setdefault(name.rpartition(".")[0], []).append(parameter)
        with torch.no_grad():
            for owner, weights in list(owners.items())[:MOST]:
                change = abs(float(_loss_beside(model, batch, weights)) - before) / max(abs(before), 1e-12)
                bench.record.append(KIND, owner, bench.step, [change, sum(w.numel() for w in weights)])


def _loss_beside(model: nn.Module, batch: Batch, weights: Sequence[nn.Parameter]) -> torch.Tensor:
    """The loss with weights changed at random by as much as they deviate; they are as they were afterwards."""
    kept = [w.clone() for w in weights]
    for weight in weights:
        draw = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        weight.add_(weight.std() * draw.to(weight))
    loss = batch.loss(model)
    for weight, was in zip(weights, kept, strict=True):
        weight.copy_(was)
    return loss
