"""Whether the loss depends on layers that no gradient reaches: something cuts them off on the way back (§11)."""

from __future__ import annotations

import torch
from torch import nn

from trainwatch.probes.bench import Bench
from trainwatch.symptoms.cut_off import without_gradient

KIND = "cut_off"
QUANTITIES = (KIND,)
STEPS = 4  # a few forward passes of one batch
MOST = 16  # layers that are looked at


def measure(bench: Bench) -> None:
    """Change the weights of each layer without a gradient, by as much as they deviate, in a copy in evaluation mode.

    A row of `cut_off`, under the layer's name, is the change of the loss of a held batch over the loss, and how many
    entries the weights have.

    Raises:
        CannotIsolate: There is no held batch.
    """
    absent = bench.record.memo(without_gradient)
    batch = bench.batches("train", 1)[0]
    with bench.model() as model, torch.no_grad():
        before = float(batch.loss(model))
        owners: dict[str, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if name in absent:
                owners.setdefault(name.rpartition(".")[0], []).append(parameter)
        for owner, weights in list(owners.items())[:MOST]:
            kept = [w.clone() for w in weights]
            for weight in weights:
                draw = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
                weight.add_(weight.std() * draw.to(weight))
            change = abs(float(batch.loss(model)) - before) / max(abs(before), 1e-12)
            for weight, was in zip(weights, kept, strict=True):
                weight.copy_(was)
            bench.record.append(KIND, owner, bench.step, [change, sum(w.numel() for w in weights)])
