"""Whether the gradient of a first layer is a signal at all, as evidence beside how small it is (TW301)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trainwatch.diagnosis import Evidence
from trainwatch.record import RunRecord
from trainwatch.symptoms.useful_motion import gradient_signal


def signal_evidence(record: RunRecord, first: dict[str, Any], last: dict[str, Any]) -> Iterator[Evidence]:
    """Signal over noise of the first layer's gradient beside the last one's; nothing where no probe compared batches.

    It decides nothing: starved layers of stuck nets were seen with ratios of 1 to 5, last layers with 0.2 to 3.
    """
    signal = record.memo(gradient_signal)
    if signal is None:
        return
    ratio = {p["name"]: r for p, r in zip(record.facts["parameters"], signal.ratio, strict=True)}
    one, other = float(ratio[first["name"]]), float(ratio[last["name"]])
    if np.isfinite(one) and np.isfinite(other):
        note = f"of {signal.batches} batches; 1 is pure noise; that of '{last['module']}' has {other:.2g}"
        yield Evidence("signal over noise of the first layer's gradient", one, where=first["module"], step=signal.step,
                       note=note)  # fmt: skip
