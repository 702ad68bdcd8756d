"""Reading a stored record: finished, crashed, damaged, or being written at this moment."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainwatch.record.frames import Damage, ForeignFile, Frame, RecordError, encode, frames, frames_in
from trainwatch.record.run_record import RunRecord
from trainwatch.record.series import Series

SUBFOLDER = "trainwatch"
NAME = re.compile(r"(segment|snapshot)-(\d{6,12})\.seg")
ATTEMPTS = 50  # at a record whose files change while they are read
NOTES = 20  # notes of damage that are kept one by one
MOST_SERIES = 1 << 16


@dataclass(frozen=True)
class Files:
    """The files that make up a record.

    Attributes:
        current: The newest snapshot, if any, and the segments after it, in order.
        missing: Segments that should be among them, as a text; empty where none are.
        stale: Files covered by that snapshot, left by an interrupted deletion.
        last: The highest number in use.
    """

    current: list[Path]
    missing: str
    stale: list[Path]
    last: int


def read_record(path: str | Path) -> RunRecord:
    """The record of a run, as far as it was written.

    What is damaged is left out and stated in ``facts["damage"]``, a list of texts. A record that is being written may
    be read.

    Args:
        path: The directory of the run, or the one that holds the files of the record.

    Raises:
        RecordError: There is no record, or nothing of it can be read.
    """
    directory = find_record(path)
    for attempt in range(ATTEMPTS):
        try:
            files = list_files(directory)
            # A gap may be the listing's: a compaction renames and deletes while it is made.
            if files.missing and attempt < ATTEMPTS // 2:
                continue
            return replay(files)
        except FileNotFoundError:  # compacted since it was listed
            continue
        except ForeignFile as error:
            raise RecordError(f"cannot read the record in {directory}: {error}") from None
        except OSError as error:
            raise RecordError(f"cannot read the record in {directory}: {error.strerror or error}") from None
    raise RecordError(f"the files of the record in {directory} vanish while they are read; try again")


def find_record(path: str | Path) -> Path:
    """The directory that holds the files of a record: the given one or its subfolder ``trainwatch``.

    Raises:
        RecordError: Neither does; the text says where there is one, if nearby.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise RecordError(f"{path} does not exist; give the directory that was the log_dir of the run")
        if not path.is_dir():
            raise RecordError(f"{path} is not a directory; give the directory that was the log_dir of the run")
        for directory in (path, path / SUBFOLDER):
            if directory.is_dir() and _listed(directory):
                return directory
        near = sorted(str(p.parent) for p in path.glob(f"*/{SUBFOLDER}") if p.is_dir() and _listed(p))
    except RecordError:
        raise
    except (OSError, ValueError) as error:
        raise RecordError(f"cannot look for a record in {path}: {error}") from None
    hint = f"; there are records in {', '.join(near[:5])}" if near else "; was the run given a log_dir?"
    raise RecordError(f"{path} holds no record of trainwatch{hint}")


def list_files(directory: Path) -> Files:
    """The files of a record by their names, without opening them."""
    named = _listed(directory)
    covered = max((n for kind, n in named if kind == "snapshot"), default=0)
    numbers = sorted(n for kind, n in named if kind == "segment" and n > covered)
    gaps = [(a + 1, b - 1) for a, b in zip([covered, *numbers], numbers, strict=False) if b - a > 1]
    current = [named["snapshot", covered]] if covered else []
    current += [named["segment", n] for n in numbers]
    return Files(
        current=current,
        missing=", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in gaps[:NOTES]),
        stale=sorted(set(named.values()) - set(current)),
        last=max([covered, *numbers]),
    )


def replay(files: Files) -> RunRecord:
    """The record that these files tell.

    Raises:
        ForeignFile: None of them is readable.
        OSError: One of them cannot be read.
    """
    record, names = RunRecord(), set[tuple[str, str]]()
    notes = [f"missing segments: {files.missing}"] if files.missing else []
    foreign: list[ForeignFile] = []
    for path in files.current:
        ended = False
        try:
            for frame in frames(path):
                ended = frame[0].get("kind") == "end"
                try:
                    _apply(record, frame, names)
                except (ValueError, TypeError, KeyError, RecursionError) as error:
                    notes.append(f"{path.name}: a frame was left out: {str(error)[:200]}")
            if not ended and (path != files.current[-1] or path.name.startswith("snapshot")):
                notes.append(f"{path.name}: it ends before it was closed; what followed is lost")
        except Damage as error:
            notes.append(f"{path.name}: {error}; the rest of this file was left out")
        except ForeignFile as error:
            foreign.append(error)
            notes.append(f"{path.name}: {error}; it was left out")
    if foreign and len(foreign) == len(files.current):
        raise foreign[0]
    if notes:
        more = [f"and {len(notes) - NOTES} more"] if len(notes) > NOTES else []
        known = record.facts.get("damage")
        record.set_fact("damage", [*(known if isinstance(known, list) else []), *notes[:NOTES], *more])
    return record


def state_frames(record: RunRecord) -> Iterable[Frame]:
    """The whole state of a record as frames, which `replay` turns into the same record."""
    for quantity, key, series in record.items():
        meta, arrays = series.state()
        yield {"kind": "series", "quantity": quantity, "key": key, "meta": meta}, arrays
    for topic, value in record.facts.items():
        yield {"kind": "fact", "data": {"topic": topic, "value": value}}, []
    for kind, events in (("fault", record.faults), ("transition", record.transitions)):
        for event in events:
            yield {"kind": kind, "data": event}, []
    yield {"kind": "dropped", "data": record.dropped}, []
    yield {"kind": "end"}, []


def packed(record: RunRecord) -> bytes:
    """The whole state of a record; `unpack` is the inverse."""
    return b"".join(encode(head, arrays) for head, arrays in state_frames(record))


def unpack(data: bytes, record: RunRecord) -> None:
    """Put what `packed` told into a record.

    Raises:
        ValueError: The data are damaged.
    """
    names = set[tuple[str, str]]()
    for frame in frames_in(io.BytesIO(data), 0, len(data)):
        _apply(record, frame, names)


def _apply(record: RunRecord, frame: Frame, names: set[tuple[str, str]]) -> None:
    """Add what a frame says. Its checksum is right, which says nothing of who wrote it: all is checked."""
    head, arrays = frame
    kind = head["kind"]
    data: dict[str, Any] = _as(dict, head.get("data", {}))
    if kind in ("rows", "series"):
        quantity, key = _as(str, head["quantity"]), _as(str, head["key"])
        if (quantity, key) not in names and len(names) >= MOST_SERIES:
            raise ValueError("more series than a record has")
        names.add((quantity, key))
        if kind == "series":
            record.put_series(quantity, key, Series.from_state(_as(dict, head["meta"]), arrays))
        else:
            steps, values = arrays
            if steps.dtype != np.int64 or values.dtype != np.float32:
                raise ValueError("rows are of another type")
            record.append(quantity, key, steps, values, _as(dict, head.get("provenance", {})))
    elif kind == "fact":
        record.set_fact(_as(str, data["topic"]), data["value"])
    elif kind == "fault":
        record.add_fault(data)
    elif kind == "transition":
        record.add_transition(data)
    elif kind == "dropped":
        for name in record.dropped:
            record.dropped[name] += _as(int, data[name])
    elif kind != "end":
        raise ValueError(f"there is no frame of kind {str(kind)[:40]!r}")


def _as(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _listed(directory: Path) -> dict[tuple[str, int], Path]:
    """The files of a record in a directory. Only regular ones: a pipe would block its reader for ever."""
    found = {}
    for path in directory.iterdir():
        match = NAME.fullmatch(path.name)
        if match and path.is_file():
            found[match[1], int(match[2])] = path
    return found
