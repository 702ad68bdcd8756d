"""What a gradient that fades looks like: the layers that it starves, cells that it dies out in, its noise (TW301)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trainwatch.diagnosis import Evidence
from trainwatch.record import RunRecord
from trainwatch.rules.depth_remedies import RECURRENT
from trainwatch.symptoms.gradients import Signal, gain_of
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


def fading_cell(record: RunRecord, limit: float) -> tuple[str, float] | None:
    """Module and gain of the first plain recurrent weight whose gain is below a limit."""
    for p in record.facts.get("parameters", ()):
        if p["kind"] == "recurrent" and p["module_type"] in RECURRENT and "std" in p and 0 < gain_of(p) < limit:
            return str(p["module"]), gain_of(p)
    return None


def starved_of(signal: Signal, decades: float) -> list[dict[str, Any]]:
    """Parameters whose gradient is below that of the largest by the threshold, the first layer first."""
    depth = signal.log_rms[0] - np.nanmax(signal.log_rms[0])
    return [p for p, fall in zip(signal.parameters, depth, strict=True) if fall <= -decades] or [signal.parameters[0]]
