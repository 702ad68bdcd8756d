"""How many weights an L1 penalty makes zero: a path of proximal steps over rising coefficients, on a copy (§8, §16)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from trainwatch.probes.curvature import Hessian
from trainwatch.probes.isolation import twin_with_optimizer, untouched
from trainwatch.probes.proximal import pull_of, shrink

SHARES = (0.3, 0.6, 0.9)  # of zeros, for which coefficients are sought where none are given
SLACK = 0.01  # of a coefficient: gradients are sums of rounded numbers
Loss = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class PathPoint:
    """Where proximal steps under one coefficient led.

    Attributes:
        l1: The coefficient.
        zeros: Share of exact zeros among the penalised weights.
        kept: Share of those zeros whose gradient is within the coefficient, so that they stay; NaN without zeros.
        loss: Mean loss of the batches, in evaluation mode.
        layers: Name of each penalised parameter -> its share of zeros.
    """

    l1: float
    zeros: float
    kept: float
    loss: float
    layers: dict[str, float] = field(repr=False)


def sparsity_path(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    loss: Callable[[nn.Module, Any], torch.Tensor],
    batches: Sequence[Any],
    l1: Sequence[float] | None = None,
    steps: int = 200,
    memory: int = 1 << 29,
) -> tuple[PathPoint, ...]:
    """How many weights become exactly zero if training goes on with `trainwatch.prox`, for each of some coefficients.

        path = trainwatch.probes.sparsity_path(
            model, optimizer, loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]), batches=batches
        )
        for point in path:
            print(point.l1, point.zeros, point.loss)

    A copy of the model goes on from its present weights, with a copy of the optimiser, for so many steps under the
    smallest coefficient, from there on under the next, and so on: each takes up what the last one made. The model, its
    optimiser and the random state of the process stay as they are. Weights of two dimensions and more are penalised.

    Args:
        model: As far as it is trained.
        optimizer: Of the model, with the rate that the steps are to have: an SGD, Adam, AdamW, RMSprop or Adagrad.
        loss: From a model and a batch to a real scalar, without a penalty.
        batches: What `loss` is given in turn, at least one. As many and as varied as in training, for the copy soon
            knows a few by heart, and gradients that vanish keep more weights at zero.
        l1: Coefficients; by default those that would put about 30, 60 and 90 % of the weights to zero if the loss were
            quadratic: there the gradient at w = 0 is g - Hw, and is compared with the coefficient.
        steps: Under each coefficient. The longer, the more zeros; ``kept`` tells whether they would stay.
        memory: Bytes that the copy may take, and kept gradient graphs as many.

    Raises:
        TypeError: The optimiser is of a kind whose step size is not known.
        ValueError: An argument cannot be used; the text names it.
        CannotIsolate: The model is too large or cannot be copied, or has no curvature to seek coefficients by.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number, at least 1, got {steps!r}")
    if not len(batches):
        raise ValueError("batches must hold at least one")
    for amount in l1 or ():
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 < amount < math.inf:
            raise ValueError(f"l1 must hold finite numbers above 0, got {amount!r}")
    pull_of(optimizer)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with untouched(device, model):
        copied, own = twin_with_optimizer(model, optimizer, memory)
        held = {id(p) for group in own.param_groups for p in group["params"]}
        weights = {n: p for n, p in copied.named_parameters() if p.requires_grad and p.ndim > 1 and id(p) in held}
        if not weights:
            raise ValueError("the optimiser holds no trainable weight of two dimensions or more of this model")
        losses: list[Loss] = [lambda batch=batch: loss(copied, batch) for batch in batches]  # type: ignore[misc]

        def step(n: int) -> None:
            own.zero_grad()
            losses[n % len(losses)]().backward()
            own.step()

        copied.eval()
        path, points = ProximalPath(copied, own, weights), []
        for amount in sorted(l1) if l1 else _sought(weights, losses, memory):
            path.follow(step, steps, dict.fromkeys(weights, amount))
            layers, zeros = path.zeros()
            with torch.no_grad():
                level = sum(float(one()) for one in losses) / len(losses)
            points.append(PathPoint(amount, zeros, path.kept(losses), level, layers))
        return tuple(points)


class ProximalPath:
    """A copy of a model that takes proximal steps under coefficients that change.

    Args:
        model: The copy.
        optimizer: Its optimiser.
        weights: Name -> parameter, those that are penalised.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, weights: Mapping[str, torch.Tensor]) -> None:
        self._model, self._optimizer, self._weights = model, optimizer, weights
        self._pull, self._names = pull_of(optimizer), {id(p): name for name, p in weights.items()}
        self._taken = 0

    def follow(self, step: Callable[[int], None], steps: int, amounts: Mapping[str, float]) -> None:
        """Take steps in training mode, and leave the copy in evaluation mode.

        Args:
            step: Takes the n-th step along the loss alone.
            steps: How many.
            amounts: Name of each weight -> its coefficient.
        """
        self._amounts = amounts
        self._model.train()
        for n in range(self._taken, self._taken + steps):
            step(n)
            self._shrink()
        self._taken += steps
        self._model.eval()

    @torch.no_grad()
    def _shrink(self) -> None:
        """As `trainwatch.prox` does, with a coefficient for each weight."""
        for group in self._optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None and id(p) in self._names:
                    shrink(p, self._pull(group, self._optimizer.state[p], self._amounts[self._names[id(p)]]))

    def zeros(self) -> tuple[dict[str, float], float]:
        """Share of exact zeros in each weight, and in all of them together."""
        counts = {name: int((p == 0).sum()) for name, p in self._weights.items()}
        sizes = {name: p.numel() for name, p in self._weights.items()}
        return {name: counts[name] / sizes[name] for name in sizes}, sum(counts.values()) / sum(sizes.values())

    def kept(self, losses: Sequence[Loss]) -> float:
        """Share of the zeros at which the gradient of the mean loss is within the coefficient; NaN without zeros.

        That is the condition for a minimum there (Karush, Kuhn and Tucker): no step leads away.
        """
        tensors = list(self._weights.values())
        gradients = [torch.zeros_like(p) for p in tensors]
        for loss in losses:
            for total, g in zip(gradients, torch.autograd.grad(loss(), tensors, allow_unused=True), strict=True):
                if g is not None:
                    total += g.detach() / len(losses)
        zeros = kept = 0
        for (name, p), g in zip(self._weights.items(), gradients, strict=True):
            zeros += int((p == 0).sum())
            kept += int(((p == 0) & (g.abs() <= (1 + SLACK) * self._amounts[name])).sum())
        return kept / zeros if zeros else math.nan


def _sought(weights: Mapping[str, torch.Tensor], losses: Sequence[Loss], memory: int) -> list[float]:
    """Coefficients for about so many zeros, from the gradient that a quadratic would have at w = 0 (g - Hw).

    One number a weight, from a single product; off as a forecast, good enough to begin at.
    """
    tensors = list(weights.values())
    hessian = Hessian(losses, tensors, memory=memory)
    at = torch.cat([p.detach().reshape(-1).to(hessian.dtype) for p in tensors])
    there = (hessian.gradient() - hessian(at)).abs().float()
    ordered = there.sort().values
    found = [float(ordered[min(len(ordered) - 1, int(share * len(ordered)))]) for share in SHARES]
    rising = [found[0], *(b for a, b in pairwise(found) if b > a)]
    return [amount for amount in rising if amount > 0]
