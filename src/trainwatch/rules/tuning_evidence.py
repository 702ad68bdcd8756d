"""The numbers behind a verdict on the tuning of a pretrained model (TW801)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trainwatch.diagnosis import Evidence
from trainwatch.record import RunRecord
from trainwatch.rules.tuning_remedies import Spared
from trainwatch.symptoms.experiments import evaluated
from trainwatch.symptoms.tuning import Extent


def shown(
    record: RunRecord, extent: Extent, spared: Spared, *, full: float, crowded: float, by_heart: float
) -> Iterator[Evidence]:
    """How much is trained on how little, what a copy with a part frozen comes to, and how the start looked."""
    yield Evidence("numbers trained per training sample", extent.trained / extent.samples, crowded, step=0,
                   note=f"{extent.trained:,} for {extent.samples:,}")  # fmt: skip
    yield Evidence("share of the model that is trained", extent.share, full, step=0)
    run = f", the run {spared.best:.4g} at its best" if math.isfinite(spared.best) else ""
    yield Evidence("validation loss of a copy with modules frozen", spared.loss, spared.most, step=spared.step,
                   where=", ".join(spared.modules), note=f"{spared.before:.4g} with none{run}; {spared.freed:.0%} "
                   f"of the numbers need not be trained; standard error {spared.error:.2g}")  # fmt: skip
    look = record.memo(evaluated)
    if look is not None and look.validation > 0:
        note = f"of held batches, {look.training:.3g} and {look.validation:.3g}"
        yield Evidence("training loss over validation loss", look.training / look.validation, by_heart,
                       step=look.step, note=note)  # fmt: skip
    starts = record.facts["start_weights"]
    yield Evidence("layers in which training showed at the start", starts["trained"], step=0,
                   note=f"of {starts['judged']} that were looked at; start kept of {starts['kept']:,} numbers, not "
                   f"of {starts['left_out']} modules")  # fmt: skip
