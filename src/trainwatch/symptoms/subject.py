"""What a record is of: a run, or a model before its training."""

from __future__ import annotations

from trainwatch.record import RunRecord


def before_training(record: RunRecord) -> bool:
    """The record is that of a preflight: a few steps on one batch, by copies."""
    return record.facts.get("subject") == "preflight"
