"""`escape`: leave a saddle by the step that was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainwatch.callbacks.pytorch import Watch
from trainwatch.escaping import Escaped
from trainwatch.monitor import Monitor

if TYPE_CHECKING:
    from trainwatch.callbacks.lightning import TrainWatch


def escape(watch: Watch | TrainWatch) -> Escaped:
    """Move the weights off a saddle point, if they are at one.

    Curvature is measured anew, on a copy and on held batches: a part of them gives a direction of negative curvature,
    the others confirm or refute it, as TW401 asks. Only where it is confirmed the weights of the live model are moved,
    in place, by the length at which the loss of those held batches was lowest. The optimiser keeps its state, momentum
    included. The record notes it under ``escapes``.

    Call it between two steps, after ``optimizer.step()`` and before the next forward pass: gradients that are at hand
    are those of the weights before, so zero them or take the step first.

        escaped = trainwatch.escape(watch)
        print(escaped)  # Escaped(moved=True, length=..., drop=..., drop_error=..., reason="")

    Args:
        watch: A live one: of `trainwatch.watch`, or the callback `TrainWatch` during `fit`.

    Returns:
        Whether the weights were moved, how far, what it gained, or the reason why nothing was done.

    Raises:
        TypeError: `watch` is none.
        ValueError: It has ended, or has not begun.
    """
    monitor = getattr(watch, "_monitor", watch)
    if not isinstance(monitor, Monitor | None) or watch is None:
        raise TypeError(
            f"escape needs the watch of a training, as trainwatch.watch returns it, or the callback TrainWatch; "
            f"got {type(watch).__name__}"
        )
    if monitor is None:
        raise ValueError("the watch has not begun: call escape while the trainer fits")
    if monitor.report is not None:
        raise ValueError("the watch has ended: call escape before finish(), between two steps")
    return monitor.escape()
