"""Parameters that no optimiser trains: frozen, forgotten, unknown to the model, or not the model's at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from trainwatch.capture import wiring

MOST = 256  # parameters that are looked at closely
PRINT = 16  # entries of a parameter by which a change is noticed
JUDGED = 32  # parameters whose randomness is judged, so that the start does not take long
LARGEST = 1_000_000  # entries of such a parameter
SMALLEST = 32
UNIFORM_EDGE = 1.06  # largest entry over that of a uniform distribution of the same deviation
UNIFORM_SPREAD = 0.15  # of few entries: how far their deviation may be from that of a uniform distribution


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
        judged = [n for n in self._outside if _can_be_judged(owners.get(n.rpartition(".")[0]), self._outside[n])]
        self._fresh = dict.fromkeys(self._outside, False)
        self._fresh.update((n, _is_fresh(owners[n.rpartition(".")[0]], self._outside[n])) for n in judged[:JUDGED])
        # What is fresh and changes is trained by other means, an average over another network for instance.
        self._prints = {n: (p._version, _print(p)) for n, p in self._outside.items() if self._fresh[n]}
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
        return parameter._version != version or not torch.equal(_print(parameter), was)


def _print(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.detach().flatten()[:PRINT].clone()


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


def _can_be_judged(module: nn.Module | None, parameter: torch.Tensor) -> bool:
    layer = isinstance(module, wiring.MATRIX_OWNERS) and parameter.ndim > 1 and parameter.is_floating_point()
    return layer and SMALLEST <= parameter.numel() <= LARGEST


def _is_fresh(module: nn.Module, parameter: torch.Tensor) -> bool:
    """Whether a weight looks as it did when it was initialised: noise without structure.

    Either it has the hard edges of a uniform distribution, which the first epoch of training blurs, or just fills the
    range of torch's default one. Or its largest
    singular value is that of a random matrix (Marchenko and Pastur, 1967: sd (sqrt(rows) + sqrt(columns))) and its
    bias is still at zero or fills the range of torch's default initialisation.
    """
    weight = parameter.detach()
    matrix = weight.reshape(len(weight), -1).float()
    deviation = float(matrix.std())
    largest = float(matrix.abs().max())
    if deviation == 0 or largest / deviation < UNIFORM_EDGE * 3**0.5:
        return deviation > 0
    filled_by_default = 0.9 < largest * math.sqrt(matrix.shape[1]) < 1.0001
    if filled_by_default and abs(deviation / largest * 3**0.5 - 1) < UNIFORM_SPREAD:
        return True
    bias = getattr(module, "bias", None)
    if min(matrix.shape) < 16 or not isinstance(bias, torch.Tensor):
        return False
    filled = float(bias.detach().abs().max()) * math.sqrt(matrix.shape[1])
    if filled != 0 and not 0.7 < filled < 1.0001:
        return False
    edge = deviation * (math.sqrt(matrix.shape[0]) + math.sqrt(matrix.shape[1]))
    return largest_singular_value(matrix - matrix.mean()) < 1.02 * edge


def largest_singular_value(matrix: torch.Tensor, rounds: int = 12) -> float:
    """Of a matrix (rows, columns), by power iteration: a lower bound, close where one value stands out."""
    vector = torch.linspace(-1, 1, matrix.shape[1], device=matrix.device).cos()  # no draw from anyone's generator
    for _ in range(rounds):
        vector = matrix.T @ (matrix @ vector)
        vector = vector / vector.norm().clamp(min=1e-30)
    return float((matrix @ vector).norm())
