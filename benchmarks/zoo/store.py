"""Records of zoo runs on disk: one compressed file a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.zoo.scenario import Scenario
from trainwatch.record import RunRecord
from trainwatch.record.series import Series

RECORDS = Path(__file__).parent / "records"


def save(path: Path, record: RunRecord, about: dict[str, Any]) -> None:
    """Write a record and what is known of its run."""
    arrays: dict[str, Any] = {}
    series = []
    for quantity, key, held in record.items():
        meta, parts = held.state()
        arrays.update({f"{len(series)}.{i}": part for i, part in enumerate(parts)})
        series.append({"quantity": quantity, "key": key, "meta": meta, "parts": len(parts)})
    header = {
        "about": about,
        "series": series,
        "facts": record.facts,
        "faults": record.faults,
        "transitions": record.transitions,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    half_written = path.with_suffix(".part")
    with half_written.open("wb") as file:
        np.savez_compressed(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    half_written.replace(path)


def restore(path: Path) -> tuple[RunRecord, dict[str, Any]]:
    """Read back what `save` wrote: the record, and what is known of its run."""
    record = RunRecord()
    with np.load(path) as arrays:
        header = json.loads(arrays["header"].tobytes())
        for i, told in enumerate(header["series"]):
            parts = [arrays[f"{i}.{j}"] for j in range(told["parts"])]
            record.put_series(told["quantity"], told["key"], Series.from_state(told["meta"], parts))
    for topic, value in header["facts"].items():
        record.set_fact(topic, value)
    record.faults, record.transitions = header["faults"], header["transitions"]
    return record, header["about"]


def about(path: Path) -> dict[str, Any]:
    """What is known of the run of a stored record, without reading the record."""
    with np.load(path) as arrays:
        return dict(json.loads(arrays["header"].tobytes())["about"])


def path_of(folder: Path, scenario: Scenario, seed: int) -> Path:
    """Where the record of a run is stored."""
    return folder / scenario.half / scenario.family / f"{scenario.form}-{seed}.npz"


def beside(folder: Path, what: str) -> Path:
    """Where other records are stored: ``all`` of runs with ``probes="all"``, ``drawn`` of runs drawn at random."""
    return folder.with_name(f"{folder.name}-{what}")


def is_stored(folder: Path, scenario: Scenario, seed: int) -> bool:
    """The record is there, and of the scenario as it is declared now."""
    path = path_of(folder, scenario, seed)
    return path.is_file() and about(path).get("fingerprint") == scenario.fingerprint
