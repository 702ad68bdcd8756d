"""Judging a stored run: finished, crashed, or still going on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainwatch.config import Settings, settings_from
from trainwatch.engine import judge
from trainwatch.record import read_record
from trainwatch.report import Report


def diagnose(path: str | Path, settings: Settings | Mapping[str, Any] | None = None) -> Report:
    """Judge the record of a run.

    Args:
        path: The ``log_dir`` of the run.
        settings: `Settings`, or some of their fields over those of the nearest ``pyproject.toml``.

    Raises:
        RecordError: There is no record, or it cannot be read.
        SettingsError: A setting cannot be used.
    """
    return judge(read_record(path), settings_from(settings))
