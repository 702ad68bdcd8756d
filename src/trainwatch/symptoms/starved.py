"""Whether anything but the last layer gets a gradient, and whether anything does."""

from __future__ import annotations

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.curvature import curvature
from trainwatch.symptoms.gradients import gradients_of

TAIL = 0.3  # share of the run that counts as its end
FEWEST = 5  # steps


def below_the_last(record: RunRecord) -> float | None:
    """Squared gradient of all layers below the last one over that of the last, in the median over the end of the run.

    For `RunRecord.memo`. A ratio of two gradients of the same batches, so neither their noise nor the size of the loss
    matters. None where there is one layer alone, layers below it are not trained, or the last one gets nothing either.
    """
    gradients = record.memo(gradients_of)
    if gradients is None:
        return None
    order = np.array([-1 if p["order"] is None else p["order"] for p in gradients.parameters])
    seen = np.isfinite(gradients.norms).any(0) & (order >= 0)
    late = gradients.norms[gradients.steps >= (1 - TAIL) * gradients.steps[-1]]
    last = order == order[seen].max(initial=-1)
    if not (seen & ~last).any() or not (seen & last).any() or len(late) < FEWEST:
        return None
    squares = np.where(np.isfinite(late), late, 0.0) ** 2
    top = float(np.median(squares[:, seen & last].sum(1)))
    return float(np.median(squares[:, seen & ~last].sum(1))) / top if top > 0 else None


def change_within_reach(record: RunRecord) -> float | None:
    """What a step as long as the weights would change the loss by at most, to second order, for `RunRecord.memo`.

    By the gradient of single batches in the median over the end of the run, and by the extremes of the Hessian that a
    probe found. None where either is not known.
    """
    gradients, found = record.memo(gradients_of), record.memo(curvature)
    if gradients is None or found is None:
        return None
    late = gradients.total[gradients.steps >= (1 - TAIL) * gradients.steps[-1]]
    bend = max(found.largest, -found.smallest) * found.weights**2 / 2
    change = float(np.median(late)) * found.weights + bend
    return change if len(late) >= FEWEST and np.isfinite(change) else None
