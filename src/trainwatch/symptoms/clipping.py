"""How often, and by how much, clipping shortens the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.gradients import clipping_norm, gradients_of

START = 0.1  # of the run: first gradients are large, and clipping them is what it is for


@dataclass(frozen=True)
class Clipping:
    """Gradient norms as the clipper saw them, after the first tenth of a run.

    Attributes:
        limit: Norm at which it clips.
        first: First step that counts.
        steps: Steps that count.
        share: Of them, those whose norm was above the limit.
        factor: Median of norm over limit, of all of them.
        usual: Nine in ten norms are below it.
        optimizer: Type of the optimiser.
    """

    limit: float
    first: int
    steps: int
    share: float
    factor: float
    usual: float
    optimizer: str


def clipping_of(record: RunRecord) -> Clipping | None:
    """The clipping of a run with one optimiser, for `RunRecord.memo`; None where it clips no norm.

    The total norm is that of all parameters of the optimiser; where a run clips parts of them by themselves it is too
    large.
    """
    limit, gradients = clipping_norm(record), record.memo(gradients_of)
    if not np.isfinite(limit) or gradients is None:
        return None
    late = (gradients.steps >= START * record.steps) & np.isfinite(gradients.total)
    norms = gradients.total[late]
    if not len(norms):
        return None
    return Clipping(
        limit=limit,
        first=int(gradients.steps[late][0]),
        steps=len(norms),
        share=float((norms > limit).mean()),
        factor=float(np.median(norms) / limit),
        usual=float(np.quantile(norms, 0.9)),
        optimizer=str(gradients.optimizer["type"]),
    )
