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
        on_gradients: The gradients of that backward pass still carry the scale.
    """

    def __init__(self) -> None:
        self.scale: torch.Tensor | None = None
        self.skipped = self.in_a_row = 0
        self.on_gradients = False
        self._last: tuple[Any, Any, Any] | None = None

    def note(self, scaler: Any, unscaled: Any, scaled: Any) -> None:
        """A scaler multiplied a loss."""
        if isinstance(scaled, torch.Tensor) and scaled is not unscaled:
            self._last = (weakref.ref(scaled), weakref.ref(unscaled), scaler)

    def updated(self, skipped: bool) -> None:
        """A scaler has adapted its scale, after a step that it skipped or took."""
        self.on_gradients = False
        self.skipped += skipped
        self.in_a_row = self.in_a_row + 1 if skipped else 0

    def taken_off(self) -> None:
        """A scaler has divided the gradients by its scale."""
        self.on_gradients = False

    @staticmethod
    def kept_from_stepping(overflow: torch.Tensor | None) -> bool:
        """Whether a fused optimiser, which is called all the same, skipped its step.

        On another device than the CPU nobody may wait for the answer: there such a step counts, without gradients.

        Args:
            overflow: Scalar that the scaler hands to the optimiser: above 0 where a gradient overflowed.
        """
        return overflow is not None and overflow.device.type == "cpu" and bool(overflow)

    def unscaled(self, root: torch.Tensor) -> torch.Tensor:
        """The loss behind the root of a backward pass that begins."""
        self.scale, self.on_gradients = None, False
        last, self._last = self._last, None
        if last is None or last[0]() is not root:
            return root
        _, unscaled, scaler = last
        self.scale, self.on_gradients = scaler._scale, True
        original = unscaled()  # gone where only the product was kept
        return original if isinstance(original, torch.Tensor) else root.detach() / self.scale
