"""What a record is about: a training, or what there is before one."""

from __future__ import annotations

from trainwatch.record import RunRecord


def is_of_data(record: RunRecord) -> bool:
    """Whether data were looked at without a training: there is no loss and no step, and harm cannot be measured."""
    return record.facts.get("subject") == "data"


def before_training(record: RunRecord) -> bool:
    """Whether it is of a preflight: a few steps on one batch, by copies."""
    return record.facts.get("subject") == "preflight"
