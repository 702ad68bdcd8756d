"""How far outputs depend on the other samples of their batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord


@dataclass(frozen=True)
class Dependence:
    """One dimension of a batch, in evaluation mode; changes are root mean squares over the outputs.

    Attributes:
        key: The dimension.
        kept: Change of the outputs of samples that stayed while the others were replaced.
        replaced: Change of the outputs of those.
        turned: Change where the batch is turned round, sample by sample.
        apart: Difference between the outputs of a sample and of its opposite number.
        size: The outputs themselves.
        unit: Rounding unit of what the model computes with.
        random: Two passes over the same batch differ.
        samples: Samples in the batch.
        step: Optimiser steps taken before.
    """

    key: str
    kept: float
    replaced: float
    turned: float
    apart: float
    size: float
    unit: float
    random: bool
    samples: int
    step: int


def dependence(record: RunRecord) -> list[Dependence]:
    """Each dimension that may count the samples, the first one first, for `RunRecord.memo`."""
    rows = {key: record.latest("batch_dependence", key) for key in sorted(record.keys("batch_dependence"))}
    found = []
    for key, row in rows.items():
        if row is not None and np.isfinite(row[1]).all():
            kept, replaced, turned, apart, size, unit, random, samples = row[1].tolist()
            known = kept, replaced, turned, apart, size, unit, bool(random), round(samples), row[0]
            found.append(Dependence(key, *known))
    return found
