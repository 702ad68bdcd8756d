"""Judging a stored run: finished, crashed, or still going on."""

from __future__ import annotations

from pathlib import Path

from trainwatch.config import Settings, load_settings
from trainwatch.engine import judge
from trainwatch.record import read_record
from trainwatch.report import Report


def diagnose(path: str | Path, settings: Settings | None = None) -> Report:
    """Judge the record of a run.

    Args:
        path: The ``log_dir`` of the run.
        settings: Which rules, and their thresholds; those of the nearest ``pyproject.toml`` by default.

    Raises:
        RecordError: There is no record, or it cannot be read.
        SettingsError: The settings of ``pyproject.toml`` cannot be used.
    """
    return judge(read_record(path), settings or load_settings())
