"""A copy at the start of a training of its own: weights drawn anew or as they began, an empty optimiser, its rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import nn

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.evaluated import Losses, level, seen_at
from trainwatch.probes.rates import highest_rates, set_rates

Some = TypeVar("Some", bound=Batch)

WARM_UP = 0.1  # of the steps: the rate rises, for nets that bear no long first step


def schedule(steps: int) -> Iterator[float]:
    """Shares of the highest rate: up, then down to nothing."""
    return (min(1.0, (i + 1) / (WARM_UP * steps)) * (1 - i / steps) for i in range(steps))


def cycle(
    bench: Bench,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    steps: int,
    factor: float = 1.0,
) -> Iterator[int]:
    """Let a copy learn from batches in turn, and say after each step how many it has taken.

    Args:
        bench: What the probe is given.
        model: The copy.
        optimizer: What trains it.
        batches: To learn from.
        steps: How many, over which the rates follow `schedule`.
        factor: On the highest rates of the run.
    """
    rates = [factor * rate for rate in highest_rates(bench.record, optimizer)]
    for i, share in enumerate(schedule(steps)):
        set_rates(optimizer, [rate * share for rate in rates])
        bench.train_step(batches[i % len(batches)], model, optimizer)
        yield i + 1


def marks(steps: int, count: int) -> set[int]:
    """So many steps at even distances, the last of them included."""
    return {steps * (k + 1) // count for k in range(count)}


def best_look(
    bench: Bench,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    sides: tuple[Sequence[Some], Sequence[Some]],
    steps: int,
    looks: int,
    losses: Callable[[nn.Module, Sequence[Some]], Losses],
) -> tuple[Losses, Losses]:
    """Let a copy learn as in `cycle`, and say its losses where those of validation are lowest.

    Few samples are soon learned by heart, so that the best may be long before the end.

    Args:
        bench: What the probe is given.
        model: The copy.
        optimizer: What trains it.
        sides: Batches to learn from, and batches of validation.
        steps: How many.
        looks: How often the losses are looked at, in evaluation mode.
        losses: Of a model and some batches, shape (n,).

    Returns:
        Losses of the training and of the validation batches.
    """
    learning = cycle(bench, model, optimizer, sides[0], steps)
    found = seen_at(marks(steps, looks), learning, model, lambda: (losses(model, sides[0]), losses(model, sides[1])))
    return min(found, key=lambda look: level(look[1]))


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
    optimizer.state.clear()
    if isinstance(optimizer, torch.optim.Adagrad):  # which makes its state when it is constructed
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                began = torch.full_like(parameter, group["initial_accumulator_value"])
                optimizer.state[parameter].update(step=torch.tensor(0.0), sum=began.detach())
