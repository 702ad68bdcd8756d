"""trainwatch: a linter for training runs.

One line in an existing trainer; while it trains, trainwatch measures; when something is wrong it says so with a code,
the evidence and what to do, in numbers of this run. Names are loaded when first used: importing this package costs
next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainwatch.auditing.api import audit as audit
    from trainwatch.auditing.sources.reading import AuditError as AuditError
    from trainwatch.callbacks.escaping import escape as escape
    from trainwatch.callbacks.huggingface import HFTrainWatch as HFTrainWatch
    from trainwatch.callbacks.lightning import TrainWatch as TrainWatch
    from trainwatch.callbacks.preflight import preflight as preflight
    from trainwatch.callbacks.pytorch import Watch as Watch
    from trainwatch.callbacks.pytorch import watch as watch
    from trainwatch.config import Settings as Settings
    from trainwatch.config import SettingsError as SettingsError
    from trainwatch.diagnosis import Diagnosis as Diagnosis
    from trainwatch.diagnosis import Evidence as Evidence
    from trainwatch.diagnosis import Remedy as Remedy
    from trainwatch.diagnosis import Severity as Severity
    from trainwatch.monitor import StopTraining as StopTraining
    from trainwatch.offline import diagnose as diagnose
    from trainwatch.probes.proximal import prox as prox
    from trainwatch.record import RecordError as RecordError
    from trainwatch.record import RunRecord as RunRecord
    from trainwatch.report import FindingsError as FindingsError
    from trainwatch.report import Report as Report

__version__ = "0.1.0"

_HOMES = {
    "HFTrainWatch": "callbacks.huggingface",
    "TrainWatch": "callbacks.lightning",
    "Watch": "callbacks.pytorch",
    "watch": "callbacks.pytorch",
    "preflight": "callbacks.preflight",
    "escape": "callbacks.escaping",
    "prox": "probes.proximal",
    "AuditError": "auditing.sources.reading",
    "audit": "auditing.api",
    "Settings": "config",
    "SettingsError": "config",
    "Diagnosis": "diagnosis",
    "Evidence": "diagnosis",
    "Remedy": "diagnosis",
    "Severity": "diagnosis",
    "StopTraining": "monitor",
    "diagnose": "offline",
    "RecordError": "record",
    "RunRecord": "record",
    "FindingsError": "report",
    "Report": "report",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "probes":  # experiments for use alone
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
