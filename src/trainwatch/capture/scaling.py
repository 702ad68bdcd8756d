"""The scale that a `GradScaler` put on a loss, so that losses and gradients are recorded without it."""

from __future__ import annotations

import weakref
from typing import Any

import torch


class Scaling:
    """Recognises roots of backward passes that were scaled.

    Attributes:
        scale: Scale of the backward pass that runs or ran last, a scalar on the device; None where there was none.
        skipped: Steps that scalers skipped since their gradients had overflowed.
        in_a_row: Those of them since the last step that was taken.
    """

    def __init__(self) -> None:
        self.scale: torch.Tensor | None = None
        self.skipped = self.in_a_row = 0
        self._last: tuple[Any, Any, Any] | None = None

    def note(self, scaler: Any, unscaled: Any, scaled: Any) -> None:
        """A scaler multiplied a loss."""
        if isinstance(scaled, torch.Tensor) and scaled is not unscaled:
            self._last = (weakref.ref(scaled), weakref.ref(unscaled), scaler)

    def updated(self, skipped: bool) -> None:
        """A scaler has adapted its scale, after a step that it skipped or took."""
        self.skipped += skipped
        self.in_a_row = self.in_a_row + 1 if skipped else 0

    def unscaled(self, root: torch.Tensor) -> torch.Tensor:
        """The loss behind the root of a backward pass that begins."""
        self.scale = None
        last, self._last = self._last, None
        if last is None or last[0]() is not root:
            return root
        _, unscaled, scaler = last
        self.scale = scaler._scale
        original = unscaled()  # gone where only the product was kept
        return original if isinstance(original, torch.Tensor) else root.detach() / self.scale
