"""How often, and by how much, clipping shortens the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.gradients import gradients_of

ROUNDING = 1e-6
START = 0.1  # of the run: first gradients are large, and clipping them is what it is for


@dataclass(frozen=True)
class Clipping:
    """Gradient norms as the clipper saw them, after the first tenth of a run.

    Attributes:
        limit: Norm that it leaves of a gradient, median of those that it cuts.
        by_entry: It cuts each entry, not the norm.
        first: First step that counts.
        steps: Steps that count.
        share: Of them, those whose gradient it cut.
        factor: Median of the norm before over the norm after, of all of them.
        usual: Nine in ten norms are below it.
        optimizer: Type of the optimiser.
    """

    limit: float
    by_entry: bool
    first: int
    steps: int
    share: float
    factor: float
    usual: float
    optimizer: str


def clipping_of(record: RunRecord) -> Clipping | None:
    """The clipping of a run with one optimiser, for `RunRecord.memo`; None where nothing is clipped.

    The total norm is that of all parameters of the optimiser; where a run clips parts of them by themselves it is too
    large. What is left after entries are cut is an upper bound.
    """
    gradients = record.memo(gradients_of)
    if gradients is None or not np.isfinite(gradients.limits).any():
        return None
    late = (gradients.steps >= START * record.steps) & np.isfinite(gradients.total) & (gradients.total > 0)
    norms, after = gradients.total[late], np.sqrt(np.nansum(gradients.clipped[late] ** 2, 1))
    cut = norms > after * (1 + ROUNDING)
    if not cut.any():
        return None
    return Clipping(
        limit=float(np.median(after[cut])),
        by_entry=not np.isfinite(gradients.limits[0]),
        first=int(gradients.steps[late][0]),
        steps=len(norms),
        share=float(cut.mean()),
        factor=float(np.median(norms / after)),
        usual=float(np.quantile(norms, 0.9)),
        optimizer=str(gradients.optimizer["type"]),
    )
