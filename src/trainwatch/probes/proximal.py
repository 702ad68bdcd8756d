"""`prox`: an L1 penalty by soft-thresholding after each step, so that weights become exactly zero (§8, §16)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from trainwatch.probes.stability import Group, adam_root, rmsprop_root

L1, VECTORS = "l1", "l1_vectors"  # among the options of an optimiser, which its copies have as well
Pull = Callable[[Group, Group, float], Any]  # group, state of a parameter, l1 -> how far it pulls in one step


class Prox:
    """An L1 penalty on the weights of an optimiser; made by `prox`."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._handle: Any = optimizer.register_step_post_hook(lambda *_: proximal_step(optimizer))

    def remove(self) -> None:
        """Take it off again; weights that are zero may then move."""
        self._handle.remove()
        for group in (*self._optimizer.param_groups, self._optimizer.defaults):
            group.pop(L1, None)
        self._optimizer.defaults.pop(VECTORS, None)

    @property
    def zeros(self) -> float:
        """Share of exact zeros among the weights that are penalised. Waits for the device."""
        tensors = [p for _, _, p in _penalised(self._optimizer)]
        return sum(int((p == 0).sum()) for p in tensors) / max(1, sum(p.numel() for p in tensors))


def prox(optimizer: torch.optim.Optimizer, l1: float, *, vectors: bool = False) -> Prox:
    """Penalise the sum of absolute weights by soft-thresholding after each ``optimizer.step()``.

    One line after the optimiser is made, in Lightning within ``configure_optimizers``; leave the L1 term out of the
    loss then. Where a loss L is trained on, what is minimised is L + l1 * sum |w|:

        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        trainwatch.prox(optimizer, l1=1e-4)

    A gradient step on |w| overshoots zero to and fro, since its length does not shrink with w. The proximal step
    solves for the penalty exactly: w is moved by t towards zero and stops there, where t is l1 times the step size in
    use. A weight stays at zero as long as the (averaged) gradient of the loss is no larger than l1.

    The step size is what the optimiser multiplies a steady gradient by. Of SGD it is lr, over 1 - momentum (times 1 -
    dampening). Of Adam, AdamW, RMSprop and Adagrad it differs from weight to weight: lr over the root of the averaged
    squared gradient. There a weight whose gradient is next to none is moved by no more than the longest step that the
    optimiser could take.

    Tensors of two dimensions and more are penalised: not biases, nor the gains of normalisation. A group of the
    optimiser may have a coefficient of its own under ``"l1"``, 0 for none, which may also be changed on the way:

        torch.optim.SGD([{"params": body}, {"params": head, "l1": 0.0}], lr=0.1)

    Args:
        optimizer: An SGD, Adam, AdamW, RMSprop or Adagrad of torch.
        l1: Coefficient of groups that have none of their own.
        vectors: Penalise tensors of one dimension, too.

    Returns:
        What takes it off again (``.remove()``) and counts (``.zeros``).

    Raises:
        TypeError: It is no optimiser, or of a kind whose step size is not known here.
        ValueError: A coefficient is not a finite number of at least 0, no parameter is left to be penalised, one is
            complex, the optimiser maximises, or it has been given a `prox` already.

    Source:
        Parikh and Boyd, Proximal algorithms (2014), sections 4.2 and 6.5.2; with a step size for each weight: Duchi et
        al., Adaptive subgradient methods (2011), section 5; Yun et al., Adaptive proximal gradient methods for
        structured neural networks (2021). Longest step of Adam: Kingma and Ba (2015), section 2.1.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    if type(optimizer).__name__ not in PULLS:
        raise TypeError(
            f"the step size of {type(optimizer).__name__} for each weight is not known: use one of {', '.join(PULLS)}"
        )
    if L1 in optimizer.defaults:
        raise ValueError("the optimiser has a prox already: remove() it first, or change group['l1']")
    for amount in (l1, *(group[L1] for group in optimizer.param_groups if L1 in group)):
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount < math.inf:
            raise ValueError(f"l1 must be a finite number, at least 0, got {amount!r}")
    if any(group.get("maximize") for group in optimizer.param_groups):
        raise ValueError("the optimiser maximises: negate its loss instead, a penalty needs a minimum")
    tensors = [p for g in optimizer.param_groups if g.get(L1, l1) for p in g["params"] if vectors or p.ndim > 1]
    if not tensors:
        raise ValueError(
            "no parameter is left to be penalised: l1 is 0, or all are of one dimension (vectors=True takes those)"
        )
    if any(p.is_complex() for p in tensors):
        raise ValueError("complex parameters have no sign to shrink along: put them into a group with 'l1': 0")
    optimizer.defaults |= {L1: l1, VECTORS: vectors}  # as any option: groups added later get it, checkpoints keep it
    for group in optimizer.param_groups:
        group.setdefault(L1, l1)
    return Prox(optimizer)


@torch.no_grad()
def proximal_step(optimizer: torch.optim.Optimizer) -> None:
    """Shrink what an optimiser has just moved, as far as it has a `prox`: of a copy, whose hooks are not copied."""
    for group, l1, p in _penalised(optimizer):
        if p.grad is not None:  # else the optimiser let it be, too
            shrink(p, pull_of(optimizer)(group, optimizer.state[p], l1))


def _penalised(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Group, float, torch.Tensor]]:
    if L1 not in optimizer.defaults:
        return
    for group in optimizer.param_groups:
        l1 = group.get(L1, optimizer.defaults[L1])  # a checkpoint from before brings groups without
        if l1:
            yield from ((group, l1, p) for p in group["params"] if optimizer.defaults[VECTORS] or p.ndim > 1)


def pull_of(optimizer: torch.optim.Optimizer) -> Pull:
    """How far a coefficient pulls a weight in one step of an optimiser.

    Raises:
        TypeError: It is of a kind whose step size is not known.
    """
    kind = type(optimizer).__name__
    if kind not in PULLS:
        raise TypeError(f"the step size of {kind} for each weight is not known: use one of {', '.join(PULLS)}")
    return PULLS[kind]


def shrink(weights: torch.Tensor, by: torch.Tensor | float) -> None:
    """Soft-thresholding in place: each entry is moved towards zero, and no further.

    Args:
        weights: Of any shape.
        by: At least 0; a number, or one for each entry.
    """
    weights.copy_((weights.abs() - by).clamp_(min=0).mul_(weights.sign()))


def _sgd(group: Group, state: Group, l1: float) -> Any:
    b = group["momentum"]
    return l1 * group["lr"] * (1 - group["dampening"] * (b != 0)) / (1 - b)


def _adam(group: Group, state: Group, l1: float) -> Any:
    first, second = group["betas"]
    longest = max(1.0, (1 - first) / math.sqrt(1 - second))
    return group["lr"] * (l1 / adam_root(group, state)).clamp_(max=longest)


def _rmsprop(group: Group, state: Group, l1: float) -> Any:
    # Centred, it divides by a deviation that may vanish: a step may be of any length.
    longest = math.inf if group["centered"] else 1 / math.sqrt(1 - group["alpha"])
    return group["lr"] / (1 - group["momentum"]) * (l1 / rmsprop_root(group, state)).clamp_(max=longest)


def _adagrad(group: Group, state: Group, l1: float) -> Any:
    slowed = 1 + (state["step"] - 1) * group["lr_decay"]
    return group["lr"] / slowed * (l1 / (state["sum"].sqrt() + group["eps"])).clamp_(max=1.0)


PULLS: dict[str, Pull] = {"SGD": _sgd, "Adam": _adam, "AdamW": _adam, "RMSprop": _rmsprop, "Adagrad": _adagrad}
