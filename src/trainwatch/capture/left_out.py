"""Parameters that no optimiser trains: frozen, forgotten, unknown to the model, or not the model's at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from trainwatch.capture import wiring
from trainwatch.capture.freshness import JUDGED, can_be_judged, is_fresh, practised
from trainwatch.capture.shards import local

MOST = 256  # parameters that are looked at closely
PRINT = 16  # entries of a parameter by which a change is noticed


class LeftOut:
    """What is not trained, and whether it looks as if it had ever been.

    Args:
        models: The models watched.
        optimizers: The optimisers by name.
    """

    def __init__(self, models: wiring.Models, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        known = wiring.parameters_of(models)
        owners = wiring.named_modules(models)
        trained = {id(p) for o in optimizers.values() for p in wiring.parameters_in(o)}
        ids = {id(p) for p in known.values()}
        outside = {n: p for n, p in known.items() if id(p) not in trained or not p.requires_grad}
        self._outside = dict(list(outside.items())[:MOST])
        judged = [n for n in self._outside if can_be_judged(owners.get(n.rpartition(".")[0]), self._outside[n])]
        self._fresh = dict.fromkeys(self._outside, False)
        if judged and not any(map(practised, owners.values())):
            self._fresh.update(_before_training(owners, {n: self._outside[n] for n in judged[:JUDGED]}))
        # What is fresh and changes is trained by other means, an average over another network for instance.
        self._prints = {n: (p._version, print_of(p)) for n, p in self._outside.items() if self._fresh[n]}
        hidden = {n: p for n, p in _in_containers(owners) if id(p) not in ids and id(p) not in trained}
        self._unregistered = dict(list(hidden.items())[:MOST])
        self._foreign = {k: [p for p in wiring.parameters_in(o) if id(p) not in ids] for k, o in optimizers.items()}
        self._with_gradient = dict.fromkeys(self._foreign, 0)

    @property
    def anything(self) -> bool:
        """There is something that no optimiser trains."""
        return bool(self._outside or self._unregistered or any(self._foreign.values()))

    def look(self) -> None:
        """Count the foreign parameters that have a gradient now, after a backward pass."""
        for key, foreign in self._foreign.items():
            if foreign:
                self._with_gradient[key] = max(self._with_gradient[key], sum(p.grad is not None for p in foreign))

    def facts(self, uses: Mapping[int, int]) -> dict[str, Any]:
        """All of it, as the record keeps it. Waits for the device where a fresh parameter has to be compared.

        Args:
            uses: See `wiring.first_uses`.
        """
        return {
            "parameters": [
                {"name": n, "numel": p.numel(), "frozen": not p.requires_grad, "used": id(p) in uses,
                 "fresh": self._fresh[n], "moved": self._moved(n, p)}
                for n, p in self._outside.items()
            ],
            "unregistered": [
                {"name": n, "numel": p.numel(), "used": id(p) in uses} for n, p in self._unregistered.items()
            ],
            "foreign": {
                key: {"parameters": len(foreign), "numel": sum(p.numel() for p in foreign),
                      "with_gradient": self._with_gradient[key]}
                for key, foreign in self._foreign.items() if foreign
            },
        }  # fmt: skip

    def _moved(self, name: str, parameter: torch.Tensor) -> bool:
        if name not in self._prints:
            return False
        version, was = self._prints[name]
        return parameter._version != version or not torch.equal(print_of(parameter), was)


def print_of(parameter: torch.Tensor) -> torch.Tensor:
    """A few entries of a parameter, by which a change is noticed."""
    return local(parameter.detach()).flatten()[:PRINT].clone()


def _before_training(owners: Mapping[str, nn.Module], weights: Mapping[str, torch.Tensor]) -> dict[str, bool]:
    """Which weights look as they were initialised; one that a trained one follows is part of what was trained."""
    fresh = {name: is_fresh(owners[name.rpartition(".")[0]], weight) for name, weight in weights.items()}
    last = max((i for i, name in enumerate(fresh) if not fresh[name]), default=-1)
    return {name: found and i > last for i, (name, found) in enumerate(fresh.items())}


def _in_containers(owners: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of modules that are held in plain lists, tuples and dicts, where `parameters()` does not find them."""
    for owner, module in owners.items():
        for attribute, value in vars(module).items():
            if attribute.startswith("_") or not isinstance(value, (list, tuple, dict)):
                continue
            for key, held in _items(value):
                place = f"{owner}.{attribute}[{key!r}]".lstrip(".")
                if isinstance(held, nn.Module):
                    yield from ((f"{place}.{n}", p) for n, p in held.named_parameters() if p.requires_grad)
                elif isinstance(held, nn.Parameter) and held.requires_grad:
                    yield place, held


def _items(container: Any) -> Iterable[tuple[Any, Any]]:
    return container.items() if isinstance(container, dict) else enumerate(container)
