"""The append-only store of a run: numbered segments, compacted when they grow, safe against a kill at any instant.

``segment-000007.seg`` holds frames as they were flushed. ``snapshot-000006.seg`` holds the whole bounded state after
segment 6 and stands for it and all before it: it is written under another name, synced and renamed, which makes it
valid in one instant; what it covers is deleted after that. A reader takes the newest snapshot and the segments after
it, so neither an interrupted compaction nor one under way loses or repeats anything.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from trainwatch.record.frames import HEADER, RecordError, encode
from trainwatch.record.reader import NAME, Files, list_files, replay, state_frames
from trainwatch.record.series import Array, Series

SEGMENT_BYTES = 1 << 20
COMPACT_BYTES = 8 << 20
BUFFER_BYTES = 16 << 20
PREVIOUS = 5  # earlier records that are kept in a directory
COMPANIONS = re.compile(r"report\.(json|md|html)|events\.out\.tfevents\..*")  # made from a record, kept beside it
_MOVING = "previous.partial"
_NONE = -1  # no segment is open
_BINARY = getattr(os, "O_BINARY", 0)


class SegmentWriter:
    """Writes the record of one run into a directory, as the journal of a `RunRecord`.

    One flush is one write: a kill at any instant loses at most what was added since the last flush. A record that is in
    the directory already is moved into ``previous-N`` there with its report and its event files, N counting up; the
    last five are kept.

    Args:
        directory: Where to write; made if need be.
        segment_bytes: Size at which a segment is closed.
        compact_bytes: Size of the closed segments at which they are compacted, or four times the size of the bounded
            state where that is more. It bounds the disk that a run of any length takes.

    Raises:
        RecordError: The directory cannot be made or written.
    """

    def __init__(
        self, directory: str | Path, segment_bytes: int = SEGMENT_BYTES, compact_bytes: int = COMPACT_BYTES
    ) -> None:
        self.directory = Path(directory)
        self._segment_bytes = segment_bytes
        self._compact_bytes = compact_bytes
        self._buffer = bytearray()
        self._file = _NONE
        self._number = 0  # of the newest segment
        self._written = 0  # bytes of it
        self._closed_bytes = 0
        self._state_bytes = 0
        self._over: str | None = None  # why nothing more is written
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _set_aside(self.directory)
            self._open()
            self._write()
        except (OSError, ValueError) as error:
            self._give_up("failed")
            raise self._failure(error) from error

    def append(self, quantity: str, key: str, steps: Array, values: Array, provenance: dict[str, Any]) -> None:
        """Note rows of a series. The arrays are copied."""
        head: dict[str, Any] = {"kind": "rows", "quantity": quantity, "key": key}
        self._add(encode({**head, "provenance": provenance} if provenance else head, (steps, values)))

    def series(self, quantity: str, key: str, series: Series) -> None:
        """Note a whole series, in the place of what was noted of it before."""
        meta, arrays = series.state()
        self._add(encode({"kind": "series", "quantity": quantity, "key": key, "meta": meta}, arrays))

    def event(self, kind: str, data: dict[str, Any]) -> None:
        """Note a fact, a fault or a transition."""
        self._add(encode({"kind": kind, "data": data}))

    def flush(self) -> None:
        """Write what was noted since the last flush.

        Raises:
            RecordError: It cannot be written. It is kept for the next flush; when too much has gathered, the writer
                gives up, and from then on ignores what it is told.
        """
        if self._over is not None:
            return
        try:
            if self._file != _NONE and not os.fstat(self._file).st_nlink:
                raise FileNotFoundError(errno.ENOENT, "the record was deleted")
            if self._file == _NONE and self._buffer:
                self._open()
            self._write()
            if self._file != _NONE and self._written >= self._segment_bytes:
                self._close_segment()
                if self._closed_bytes > max(self._compact_bytes, 4 * self._state_bytes):
                    self._compact()
        except (OSError, ValueError) as error:
            if len(self._buffer) > BUFFER_BYTES:
                self._give_up("too much could not be written")
            raise self._failure(error) from error

    def close(self) -> None:
        """Write what is left and close the record. A second call does nothing.

        Raises:
            RecordError: The rest cannot be written.
        """
        if self._over is not None:
            return
        try:
            self.flush()
            if self._file != _NONE:
                self._close_segment(sync=True)
        except RecordError:
            raise
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self._give_up("closed")

    def abandon(self) -> None:
        """Let go of the record as it is on disk; what was noted since the last flush is dropped."""
        self._give_up("abandoned")

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, frame: bytes) -> None:
        if self._over == "closed":
            raise RecordError(f"the record in {self.directory} is closed: nothing can be added")
        if self._over is None:
            self._buffer += frame
            if len(self._buffer) > BUFFER_BYTES:
                self.flush()

    def _path(self, kind: str, number: int, suffix: str = "seg") -> Path:
        return self.directory / f"{kind}-{number:06d}.{suffix}"

    def _open(self) -> None:
        # Exclusive: of two runs that write into one directory the second must not add to a file of the first.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
        self._file = os.open(self._path("segment", self._number + 1), flags, 0o666)
        self._number += 1
        self._written = 0
        self._buffer[:0] = HEADER

    def _write(self) -> None:
        while self._buffer:
            done = os.write(self._file, self._buffer)  # the rest follows where it left off, now or at the next flush
            self._written += done
            del self._buffer[:done]

    def _close_segment(self, sync: bool = False) -> None:
        path = self._path("segment", self._number)
        if not path.exists() or not os.path.samestat(os.fstat(self._file), path.stat()):
            self._give_up("taken over")
            raise RecordError("another run has begun a record there, or it was deleted")
        self._buffer += encode({"kind": "end"})
        self._write()
        if sync:
            os.fsync(self._file)
        os.close(self._file)
        self._file = _NONE
        self._closed_bytes += self._written

    def _compact(self) -> None:
        """Put one snapshot in the place of all closed segments."""
        files = list_files(self.directory)
        final, temporary = self._path("snapshot", self._number), self._path("snapshot", self._number, "tmp")
        size = 0
        target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o666)
        try:
            for content in _state(files):
                size += len(content)
                while content:
                    content = content[os.write(target, content) :]
            os.fsync(target)
        except BaseException:
            os.close(target)
            temporary.unlink()  # it may be what fills the disk
            raise
        os.close(target)
        temporary.replace(final)
        _sync_directory(self.directory)
        self._closed_bytes = self._state_bytes = size
        for path in (*files.stale, *files.current):
            if path != final:
                path.unlink()

    def _give_up(self, reason: str) -> None:
        self._over = reason
        self._buffer.clear()
        if self._file != _NONE:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = _NONE

    def _failure(self, error: Exception) -> RecordError:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if isinstance(error, FileExistsError) and not self.directory.is_dir():
            why = "it is not a directory"
        return RecordError(
            f"cannot record into {self.directory}: {why}; give a log_dir of this run's own that can be written"
        )


def _state(files: Files) -> Iterator[bytes]:
    """The content of a snapshot of these files."""
    record = replay(files)
    yield HEADER
    for head, arrays in state_frames(record):
        yield encode(head, arrays)


def _set_aside(directory: Path) -> None:
    """Move the record that is in a directory, if any, into the next ``previous-N`` there.

    The files are gathered in one place first, so that what an interrupted move left behind joins the rest next time.
    """
    partial = directory / _MOVING
    for leftover in directory.glob("snapshot-*.tmp"):
        leftover.unlink()
    files = sorted(p for p in directory.iterdir() if NAME.fullmatch(p.name))
    if all(p.stat().st_size <= len(HEADER) for p in files):
        while files:  # of a run that recorded nothing
            files.pop().unlink()
    previous = sorted(int(m[1]) for p in directory.iterdir() if (m := re.fullmatch(r"previous-(\d{1,9})", p.name)))
    if files or partial.is_dir():
        partial.mkdir(exist_ok=True)
        for path in files:
            path.rename(partial / path.name)
        with contextlib.suppress(OSError):  # an event file may be held open by a run that was not finished
            for path in [p for p in directory.iterdir() if COMPANIONS.fullmatch(p.name)]:
                path.rename(partial / path.name)
        previous.append(max(previous, default=0) + 1)
        partial.rename(directory / f"previous-{previous[-1]}")
    for number in previous[:-PREVIOUS]:
        _delete(directory / f"previous-{number}")


def _delete(previous: Path) -> None:
    """Delete an earlier record, and its directory unless somebody put other files there."""
    with contextlib.suppress(OSError):
        for path in previous.iterdir():
            if NAME.fullmatch(path.name) or COMPANIONS.fullmatch(path.name):
                path.unlink()
        previous.rmdir()


def _sync_directory(directory: Path) -> None:
    """Make a rename in a directory survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
