"""What an optimiser multiplies a gradient by, and how sharply curved a loss may be before its steps grow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from trainwatch.probes.isolation import CannotIsolate

Group = dict[str, Any]


@dataclass(frozen=True)
class Steps:
    """The steps of an optimiser, seen as gradient descent with momentum behind a diagonal preconditioner.

    Attributes:
        parameters: That it moves.
        factors: For each, what its gradient is multiplied by: rate over preconditioner, of the parameter's shape.
        threshold: Steps grow along an eigenvector of factors times Hessian whose eigenvalue is beyond it.
        rate: Highest learning rate.
    """

    parameters: list[torch.Tensor] = field(repr=False)
    factors: list[torch.Tensor] = field(repr=False)
    threshold: float
    rate: float


def steps_of(optimizer: torch.optim.Optimizer) -> Steps:
    """The steps that an optimiser of torch takes from its present state.

    On a quadratic with an eigenvalue a of factors times Hessian, gradient descent is stable up to a = 2; with momentum
    b of the heavy ball, and gradients damped to a share 1 - d, up to (2 + 2b) / (1 - d); with Nesterov's up to
    (2 + 2b) / (1 + 2b). Adam averages gradients, which is momentum b1 with d = b1: (2 + 2 b1) / (1 - b1), 38 at
    b1 = .9, where the preconditioner is its root mean square gradient and eps, as far as its averages are filled.

    Raises:
        CannotIsolate: It is of another kind, its groups differ in what is stable, or it has not stepped yet.

    Source:
        Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability (2021); Cohen et
        al., Adaptive gradient methods at the edge of stability (2022).
    """
    kind = type(optimizer).__name__
    if kind not in KINDS:
        raise CannotIsolate(f"it is not known how sharp a loss {kind} can bear")
    scale, limit = KINDS[kind]
    groups: list[Group] = [g for g in optimizer.param_groups if any(p.requires_grad for p in g["params"])]
    if any(g.get("maximize") for g in groups):
        raise CannotIsolate("the optimiser maximises")
    thresholds = {round(limit(group), 9) for group in groups}
    if len(thresholds) != 1:
        raise CannotIsolate("the optimiser's groups differ in momentum: none of them has a threshold of its own")
    parameters, factors = [], []
    for group in groups:
        for p in (p for p in group["params"] if p.requires_grad):
            parameters.append(p)
            factors.append(float(group["lr"]) * scale(group, optimizer.state.get(p, {}), p))
    if not any(bool((f > 0).any()) for f in factors):
        raise CannotIsolate("the optimiser does not move anything at present")
    return Steps(parameters, factors, thresholds.pop(), max(float(g["lr"]) for g in groups))


def _one(group: Group, state: Group, parameter: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(parameter)


def _adam(group: Group, state: Group, parameter: torch.Tensor) -> torch.Tensor:
    """One over the preconditioner of Adam; nothing for a parameter that it has not moved yet."""
    if not state:
        return torch.zeros_like(parameter)
    first, _ = group["betas"]
    return torch.reciprocal((1 - first ** state["step"]) * adam_root(group, state))


def adam_root(group: Group, state: Group) -> torch.Tensor:
    """The preconditioner of Adam: root of the averaged squared gradient, and eps. Does not wait for the device."""
    _, second = group["betas"]
    square: torch.Tensor = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
    root: torch.Tensor = (square / (1 - second ** state["step"])).sqrt() + group["eps"]
    return root


def _rmsprop(group: Group, state: Group, parameter: torch.Tensor) -> torch.Tensor:
    if not state:
        return torch.zeros_like(parameter)
    return torch.reciprocal(rmsprop_root(group, state))


def rmsprop_root(group: Group, state: Group) -> torch.Tensor:
    """The preconditioner of RMSprop, as `adam_root`."""
    square: torch.Tensor = state["square_avg"]
    if group["centered"]:
        square = (square - state["grad_avg"].square()).clamp(min=0)
    root: torch.Tensor = square.sqrt() + group["eps"]
    return root


def _momentum(group: Group) -> float:
    b, damped = float(group.get("momentum") or 0.0), float(group.get("dampening") or 0.0)
    if not b:
        return 2.0
    return (2 + 2 * b) / (1 + 2 * b) if group.get("nesterov") else (2 + 2 * b) / (1 - damped)


def _averaged(group: Group) -> float:
    first = float(group["betas"][0])
    return (2 + 2 * first) / (1 - first)


Scale = Callable[[Group, Group, torch.Tensor], torch.Tensor]
KINDS: dict[str, tuple[Scale, Callable[[Group], float]]] = {
    "SGD": (_one, _momentum),
    "Adam": (_adam, _averaged),
    "AdamW": (_adam, _averaged),
    "RMSprop": (_rmsprop, _momentum),
}
