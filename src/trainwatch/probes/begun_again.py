"""A copy at the start of a training of its own: weights drawn anew or as they began, an empty optimiser, its rates."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from trainwatch.probes.bench import Bench

WARM_UP = 0.1  # of the steps: the rate rises, for nets that bear no long first step


def schedule(steps: int) -> Iterator[float]:
    """Shares of the highest rate: up, then down to nothing."""
    return (min(1.0, (i + 1) / (WARM_UP * steps)) * (1 - i / steps) for i in range(steps))


def begin_again(bench: Bench, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Draw what is trained anew, as wide as it began; forget moments, and the statistics of batch norm.

    Weights that were learned elsewhere, and are kept, are what they were at the start instead.
    """
    forget(optimizer)
    if bench.starts:
        put_back(bench, model)
        return
    began = {p["name"]: p for p in bench.record.facts.get("parameters", ()) if "mean" in p}
    trained = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in began and id(parameter) in trained:
                parameter.normal_(float(began[name]["mean"]), float(began[name]["std"]))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()


def put_back(bench: Bench, model: nn.Module) -> None:
    """Give a copy the weights and buffers that are kept of the start."""
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if name in bench.starts:
                tensor.copy_(bench.starts[name])


def forget(optimizer: torch.optim.Optimizer) -> None:
    """Empty the state of an optimiser."""
    if not isinstance(optimizer, torch.optim.Adagrad):
        optimizer.state.clear()
        return
    for state in optimizer.state.values():  # made by its constructor
        state["step"].zero_()
        state["sum"].fill_(optimizer.defaults["initial_accumulator_value"])
