"""What regularisation acts on, as evidence: size of the weights, zeros, stability, churn (§4)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainwatch.diagnosis import Evidence
from trainwatch.record import RunRecord
from trainwatch.symptoms.stability import churn, small_changes
from trainwatch.symptoms.weight_growth import weight_growth


def weights(record: RunRecord) -> Iterator[Evidence]:
    """How far weights have grown, and how many of them are zero."""
    growth = record.memo(weight_growth)
    if growth is not None:
        yield Evidence("size of the weights over that at the start", growth.factor, step=int(growth.steps[-1]))
        entries = np.array([one.zeros for one in growth.tensors])
        yield Evidence("share of weights that are zero", float(entries.mean()), note="mean over the tensors")


def stability(record: RunRecord) -> Iterator[Evidence]:
    """What small changes of the inputs do, and how many predictions change from pass to pass."""
    found, changing = record.memo(small_changes), record.memo(churn)
    name = "change of the output under small changes of the input"
    if found is None:
        yield Evidence(name, note="not measured")
    else:
        note = (
            f"in standard deviations of the output for one of the inputs; noise of {found.size:g} of these takes the "
            f"loss from {found.loss:.3g} to {found.noisy:.3g} (+- {found.noisy_error:.1g}), a step of that size "
            f"against it to {found.against:.3g} (+- {found.against_error:.1g})"
        )
        yield Evidence(name, found.gain, step=found.step, note=note)
    if changing is not None:
        note = f"from one validation pass to the next, mean of the last {changing.passes}"
        yield Evidence(
            "share of predictions that change", changing.share, where=changing.stream, step=changing.step, note=note
        )
