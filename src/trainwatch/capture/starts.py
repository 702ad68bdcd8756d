"""The weights that a fine-tuning starts from, kept for what can be told from them at the end (§11)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from trainwatch.capture import wiring
from trainwatch.capture.freshness import LARGEST, bias_shows_training, carries_training, practised, trained_shows

MOST_BYTES = 64 << 20  # of all copies together, on the CPU
JUDGED = 8  # weights that are looked at to tell whether a model was trained before

Layer = tuple[nn.Module, torch.Tensor]  # and its weight


class StartWeights:
    """Judges whether a model was trained before, and if so keeps a copy of what it starts from.

    Whole modules are kept, those with the largest weights first: their own parameters and the running statistics of
    norms. A model that begins at random is not copied: nothing of it is worth keeping.

    Args:
        models: The models watched; of several none is copied.
        optimizers: Their optimisers by name.

    Attributes:
        kept: Name of a parameter or buffer -> its copy on the CPU.
    """

    def __init__(self, models: wiring.Models, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self._models, self._optimizers = models, optimizers
        self.kept: dict[str, torch.Tensor] = {}
        self.begin()

    def begin(self) -> None:
        """Take the weights as they are now for those that training starts from."""
        held = {id(p) for o in self._optimizers.values() for p in wiring.parameters_in(o)}
        modules = {
            name: module
            for name, module in wiring.named_modules(self._models).items()
            if any(p.requires_grad and id(p) in held for p in module.parameters(recurse=False))
        }
        # Of norms it is certain; weights may have been trained and show nothing.
        looks = [True for module in modules.values() if practised(module)] or list(_looks(modules))
        self._judged, self._trained = len(looks), sum(looks)
        self.kept, self._left_out = {}, 0
        if len(self._models) == 1 and 2 * self._trained > self._judged:
            self._keep(modules)

    def facts(self) -> dict[str, Any]:
        """What was judged and what is kept, as the record keeps it."""
        return {
            "judged": self._judged,
            "trained": self._trained,
            "resumed": any(o.state for o in self._optimizers.values() if not isinstance(o, torch.optim.Adagrad)),
            "kept": sum(t.numel() for t in self.kept.values()),
            "left_out": self._left_out,
        }

    def _keep(self, modules: Mapping[str, nn.Module]) -> None:
        room = MOST_BYTES
        for name, module in sorted(modules.items(), key=lambda item: -_bytes(item[1])):
            room -= _bytes(module)
            if room < 0:
                room += _bytes(module)
                self._left_out += 1
                continue
            self.kept |= {f"{name}.{leaf}".lstrip("."): t.detach().to("cpu", copy=True) for leaf, t in _own(module)}


def _looks(modules: Mapping[str, nn.Module]) -> Iterator[bool]:
    """Whether training shows in some layers, spread over the depth of the model; in narrow ones only biases tell."""
    weights = [(m, p) for m in modules.values() for p in m.parameters(recurse=False) if p.ndim > 1]
    layers = [(m, p) for m, p in weights if 0 < p.numel() <= LARGEST and not p.is_meta]
    for module, weight in _spread([one for one in layers if trained_shows(*one)]):
        yield carries_training(weight) or bias_shows_training(module, weight)
    narrow = [one for one in layers if not trained_shows(*one)]
    yield from (True for module, weight in _spread(narrow) if bias_shows_training(module, weight))


def _spread(layers: Sequence[Layer]) -> list[Layer]:
    """At most `JUDGED` of them, from the first to the last."""
    places = np.linspace(0, len(layers) - 1, min(JUDGED, len(layers))).round().astype(int)
    return [layers[i] for i in places]


def _own(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from ((name, b) for name, b in module.named_buffers(recurse=False) if b.is_floating_point())


def _bytes(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for _, t in _own(module))
