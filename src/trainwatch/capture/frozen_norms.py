"""Batch norm that no optimiser trains: whether its running statistics stay as they were (§11)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from trainwatch.capture import wiring
from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.left_out import print_of
from trainwatch.record import RunRecord

MOST_CHANNELS = 1 << 18  # of all modules together: 2 MiB of statistics are kept


@dataclass(eq=False)
class _Followed:
    """One module, and what it was at the start.

    Attributes:
        weights: Its own parameters and those of the layer registered before it; `prints`, a few entries of each.
        mean, variance: Its running statistics.
        fed: What its input passes through is trained; by registration, until the graph tells.
        training: Steps at which it was in training mode.
    """

    name: str
    module: _NormBase
    weights: list[nn.Parameter]
    prints: list[torch.Tensor]
    mean: torch.Tensor
    variance: torch.Tensor
    fed: bool
    training: int = 0


class FrozenNorms:
    """Follows each batch norm (or instance norm with running statistics) whose gain and shift no optimiser trains.

    Where nothing that its input passes through is trained either, the graph behind the loss has no node of it.

    Args:
        models: The models watched.
        optimizers: Their optimisers by name.
    """

    def __init__(self, models: wiring.Models, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self._models, self._optimizers, self._steps = models, optimizers, 0
        self.rewired()
        self.begin()

    def rewired(self) -> None:
        """Parameters came or went: what is trained is read again."""
        self._optimized = {id(p) for o in self._optimizers.values() for p in wiring.parameters_in(o)}

    def begin(self) -> None:
        """Take the statistics as they are now for those that training starts from."""
        self._followed = list(self._found())

    def graph_seen(self, root: torch.Tensor, opaque: bool) -> None:
        """Read off the graph behind a loss which modules stand above something that is trained.

        Args:
            root: The loss, about to be backpropagated.
            opaque: Part of the graph is hidden.
        """
        frozen = {f.module.running_mean.data_ptr(): f for f in self._followed if _takes_no_gradient(f.module)}  # type: ignore[union-attr]
        if not frozen or opaque:
            return
        met = set(_statistics_in(root))
        for pointer, followed in frozen.items():
            # Of several models the graph of one loss may hold a part.
            followed.fed = pointer in met or (followed.fed and len(self._models) > 1)

    def stepped(self) -> None:
        """Look at the modes as an optimiser's step leaves them."""
        self._steps += bool(self._followed)
        for followed in self._followed:
            followed.training += followed.module.training

    def flush(self, reads: DeferredReads, record: RunRecord) -> None:
        """Write `frozen_norms`, as soon as the values have come from the device.

        The drift of a module is told by two numbers: the root mean square over its channels of how far the mean moved,
        in standard deviations at the start, and of the logarithm of the ratio of both standard deviations.
        """
        some = [f for f in self._followed if f.training and not any(map(self._trains, f.weights))]
        steps, training = self._steps, [f.training for f in some]

        def arrived(rows: list[NDArray[Any]]) -> None:
            record.set_fact(
                "frozen_norms",
                {
                    "steps": steps,
                    "modules": [
                        {"name": f.name, "channels": f.module.num_features, "momentum": f.module.momentum,
                         "training": count, "fed": f.fed, "shift": float(row[0]), "spread": float(row[1]),
                         "learned": bool(row[2]), "moved": bool(row[3])}
                        for f, count, row in zip(some, training, rows, strict=True)
                    ],
                },
            )  # fmt: skip

        if some or "frozen_norms" in record.facts:
            with torch.no_grad():
                reads.read([_drift(f) for f in some], arrived)

    def _trains(self, parameter: nn.Parameter) -> bool:
        return parameter.requires_grad and id(parameter) in self._optimized

    def _found(self) -> Iterator[_Followed]:
        fed, before, channels = False, list[nn.Parameter](), 0
        for name, module in wiring.named_modules(self._models).items():
            own = list(module.parameters(recurse=False))
            if isinstance(module, _NormBase) and not any(map(self._trains, own)):
                mean, variance = module.running_mean, module.running_var
                if module.track_running_stats and mean is not None and variance is not None:
                    channels += module.num_features
                    if channels > MOST_CHANNELS:
                        return
                    weights = [*own, *before]
                    yield _Followed(
                        name, module, weights, [*map(print_of, weights)], mean.clone(), variance.clone(), fed
                    )
            fed |= any(map(self._trains, own))
            before = own if any(p.ndim > 1 for p in own) else before


def _takes_no_gradient(module: nn.Module) -> bool:
    return not any(p.requires_grad for p in module.parameters(recurse=False))


def _drift(followed: _Followed) -> torch.Tensor:
    """(shift, spread, whether the statistics had been learned at the start, whether weights moved), on the device."""
    module, mean, variance = followed.module, followed.mean.float(), followed.variance.float()
    assert module.running_mean is not None
    assert module.running_var is not None
    shift = (module.running_mean.float() - mean) / (variance + module.eps).sqrt()
    spread = ((module.running_var.float() + module.eps) / (variance + module.eps)).log() / 2
    moved = [(print_of(p) != was).any() for p, was in zip(followed.weights, followed.prints, strict=True)]
    learned = (mean != 0).any() | (variance != 1).any()
    flags = [learned, torch.stack(moved).any() if moved else torch.zeros_like(learned)]
    return torch.stack([shift.square().mean().sqrt(), spread.square().mean().sqrt(), *(f.float() for f in flags)])


def _statistics_in(root: torch.Tensor) -> Iterator[int]:
    """Addresses of the running means that nodes of a graph were computed with."""
    stack: list[Any] = [root.grad_fn]
    seen: set[Any] = set()
    while stack and len(seen) < wiring.MOST_NODES:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack += [below for below, _ in node.next_functions]
        mean = getattr(node, "_saved_running_mean", None)
        if isinstance(mean, torch.Tensor):
            yield mean.data_ptr()
