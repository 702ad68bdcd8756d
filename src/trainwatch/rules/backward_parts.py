"""What TW301 and TW302 share: which part of the factor per layer is the weights' and which what lies between."""

from __future__ import annotations

from collections.abc import Iterable

from trainwatch.diagnosis import Evidence
from trainwatch.record import RunRecord
from trainwatch.rules.base import ProbeRequest
from trainwatch.symptoms.backward_gain import backward_gain
from trainwatch.symptoms.gradients import backward_signal
from trainwatch.symptoms.losses import loss_course


def parts_wanted(record: RunRecord, decades: float, learned: float) -> Iterable[ProbeRequest]:
    """Ask for the parts where the gradient changes by so many decades at first, and less of the loss is gone."""
    course, signal = record.memo(loss_course), record.memo(backward_signal)
    if course is not None and signal is not None and abs(signal.decades[0]) >= decades and course.gained < learned:
        reason = f"the gradient changes by {signal.factor:.2g} a layer: through weights or activations?"
        yield ProbeRequest("backward_gain", (), reason, 0.8)


def parts_shown(record: RunRecord) -> tuple[Evidence, ...]:
    """The two parts as evidence; none where they were not measured."""
    parts = record.memo(backward_gain)
    if parts is None:
        return ()
    note = f"geometric mean over {parts.layers} layers"
    return (
        Evidence("factor through a layer's weight", parts.weight, step=parts.step, note=note),
        Evidence("factor through what lies between two layers", parts.between, step=parts.step, note=note),
    )
