"""Whether the model is in training mode when the optimiser steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainwatch.capture import wiring
from trainwatch.capture.freshness import practised

NAMED = 32


class TrainingMode:
    """Counts the steps that a whole model took in evaluation mode.

    Args:
        models: The models watched. Those without dropout and batch norm have no mode that matters, nor have those of
            which no optimiser holds anything, such as a moving average.
        trained: What the optimisers hold.
    """

    def __init__(self, models: wiring.Models, trained: Iterable[torch.Tensor]) -> None:
        held = set(map(id, trained))
        self._steps = self._evaluating = 0
        self._first: int | None = None
        self._sensitive: list[tuple[nn.Module, list[tuple[str, nn.Module, bool]]]] = []
        for key, model in models.items():
            found = wiring.mode_sensitive({key: model})
            if found and any(p.requires_grad and id(p) in held for p in model.parameters()):
                prefix = f"{key}." if len(models) > 1 else ""
                self._sensitive.append((wiring.unwrap(model), [(prefix + n, m, b) for n, m, b in found]))
        # Batch norm alone, with statistics from before: evaluation mode keeps them, as is right on few samples.
        self._kept = {id(r) for r, found in self._sensitive if all(b and practised(m) for _, m, b in found)}
        self._on_purpose = False
        self._modules: list[str] = []
        self._batch_norm = False
        self._resting: list[str] = []

    def stepped(self, step: int) -> None:
        """Look at the modes as an optimiser's step leaves them."""
        if not self._sensitive:
            return
        self._steps += 1
        if step & (step + 1) == 0:  # 0, 1, 3, 7 ...: what rests does so for long
            self._resting = [
                n for root, found in self._sensitive if root.training for n, m, _ in found if not m.training
            ]
        wrong = [
            (root, found)
            for root, found in self._sensitive
            # A root in training mode with single modules in evaluation mode is frozen batch norm, on purpose.
            if not root.training and not any(module.training for _, module, _ in found)
        ]
        if wrong:
            self._evaluating += 1
            if self._first is None:
                self._first = step
                self._modules = [name for _, found in wrong for name, _, _ in found][:NAMED]
                self._batch_norm = any(normal for _, found in wrong for _, _, normal in found)
                self._on_purpose = step == 0 and all(id(root) in self._kept for root, _ in wrong)

    def facts(self) -> dict[str, Any]:
        """The counts, as the record keeps them."""
        return {
            "steps": self._steps,
            "evaluating": self._evaluating,
            "first": self._first,
            "modules": self._modules,
            "batch_norm": self._batch_norm,
            "statistics_kept": self._on_purpose,
            "resting": self._resting,
        }
