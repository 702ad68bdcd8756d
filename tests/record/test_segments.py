from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from record.failing_disk import Crash, FailingDisk
from record.samples import add_something, as_data, write_run
from trainwatch.record import RecordError, RunRecord, SegmentWriter, read_record, segments
from trainwatch.record.reader import NAME

SMALL = {"segment_bytes": 3_000, "compact_bytes": 6_000}


@pytest.fixture
def short_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series that fold after a few rows."""
    monkeypatch.setattr("trainwatch.record.series.ROWS", (16, 64))
    monkeypatch.setattr("trainwatch.record.series.WINDOWS", (4, 8))


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


def size_of(directory: Path) -> int:
    return sum(p.stat().st_size for p in directory.iterdir() if p.is_file())


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.usefixtures("short_series")
def test_the_record_read_back_is_the_one_that_was_written(tmp_path: Path, seed: int, closed: bool) -> None:
    writer = SegmentWriter(tmp_path, **SMALL)
    record = write_run(writer, additions=150, seed=seed)
    if closed:
        writer.close()
    assert any(n.startswith("snapshot") for n in names(tmp_path))
    assert any(len(s.windows["first"]) for _, _, s in record.items())
    assert as_data(read_record(tmp_path)) == as_data(record)


def test_a_record_read_back_goes_on_as_the_one_that_was_written(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path) as writer:
        record = write_run(writer, additions=300)
    again = read_record(tmp_path)
    record.journal = None
    start = record.steps + 1000
    for r in (record, again):
        rng, step = np.random.default_rng(5), start
        for _ in range(100):
            step = add_something(r, rng, step)
    assert as_data(again) == as_data(record)


def test_dropped_events_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainwatch.record.run_record.EVENTS", 10)
    writer = SegmentWriter(tmp_path, segment_bytes=500, compact_bytes=1000)
    record = RunRecord(writer)
    for step in range(200):
        record.add_fault({"step": step})
        writer.flush()
    assert any(n.startswith("snapshot") for n in names(tmp_path))
    assert read_record(tmp_path).dropped == record.dropped == {"faults": 190, "transitions": 0}


def test_nothing_is_written_before_a_flush_and_one_write_is_one_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path)
    writes, write = [], os.write
    monkeypatch.setattr(os, "write", lambda *args: (writes.append(args), write(*args))[1])
    record = RunRecord(writer)
    record.append("train_loss", "root", 0, 1.0)
    record.set_fact("task", "binary")
    assert not writes
    writer.flush()
    writer.flush()
    assert len(writes) == 1


def test_the_disk_that_a_long_run_takes_is_bounded(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    record, largest, total = RunRecord(writer), 0, 0
    values = np.random.default_rng(0).normal(size=(400, 62)).astype(np.float32)
    for i in range(500):
        record.append("grad_norm", "default", np.arange(400) + 400 * i, values)
        total += values.nbytes
        writer.flush()
        largest = max(largest, size_of(tmp_path))
    assert total > 48e6
    assert largest < 13e6  # 8 MiB of closed segments, one that is open, one to be closed, and what is kept
    assert as_data(read_record(tmp_path)) == as_data(record)


def test_what_an_interrupted_deletion_left_is_ignored_and_then_deleted(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, **SMALL)
    record, rng, step, kept = RunRecord(writer), np.random.default_rng(0), 0, b""
    old, snapshots = tmp_path / "segment-000001.seg", list[str]()
    while len(snapshots) < 2:
        step = add_something(record, rng, step)
        writer.flush()
        if old.exists():
            kept = old.read_bytes()
        elif not snapshots:
            old.write_bytes(kept)
            assert as_data(read_record(tmp_path)) == as_data(record)
        snapshots = sorted({*snapshots, *(n for n in names(tmp_path) if n.startswith("snapshot"))})
    assert not old.exists()
    assert as_data(read_record(tmp_path)) == as_data(record)


def test_a_state_larger_than_the_bound_is_not_compacted_at_every_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compactions, compact = [], SegmentWriter._compact
    monkeypatch.setattr(SegmentWriter, "_compact", lambda self: (compactions.append(1), compact(self))[1])
    writer = SegmentWriter(tmp_path, segment_bytes=1_000, compact_bytes=1_000)
    record = RunRecord(writer)
    for i in range(400):
        record.append("train_loss", "root", np.arange(50) + 50 * i, np.zeros(50))
        writer.flush()
    assert 2 <= len(compactions) <= 6  # each after four times the bytes of the one before; 280 segments in all
    assert as_data(read_record(tmp_path)) == as_data(record)


@pytest.mark.usefixtures("short_series")
def test_a_crash_after_any_file_operation_loses_and_repeats_nothing(tmp_path: Path) -> None:
    seed, additions, flush_every = 1, 60, 4

    def run(directory: Path, told: list[Any], flushed: list[int]) -> None:
        rng, step = np.random.default_rng(seed), 0
        writer = SegmentWriter(directory, segment_bytes=1500, compact_bytes=3000)
        record = RunRecord(writer)
        told.append(as_data(record))
        for i in range(additions):
            step = add_something(record, rng, step)
            told.append(as_data(record))
            if i % flush_every == flush_every - 1:
                writer.flush()
                flushed.append(len(told) - 1)
        writer.close()

    compacted = 0
    for operations in range(1, 1000):
        directory, told, flushed = tmp_path / str(operations), list[Any](), [0]
        with pytest.MonkeyPatch.context() as patch:
            FailingDisk(patch, operations)
            try:
                run(directory, told, flushed)
                crashed = False
            except Crash:
                crashed = True
        if told:
            record = read_record(directory)
            damage = record.facts.pop("damage", [])
            found = told.index(as_data(record))
            assert flushed[-1] <= found <= len(told) - 1, operations
            assert all("segment" in d and len(damage) == 1 for d in damage)  # no more than a torn end
            compacted += any(n.startswith("snapshot") and n.endswith(".seg") for n in names(directory))
        if not crashed:
            break
    assert not crashed
    assert told.index(as_data(read_record(directory))) == additions
    assert compacted > 5


def test_a_crash_while_an_old_record_is_moved_aside_does_not_tear_it(tmp_path: Path) -> None:
    for operations in range(1, 100):
        directory = tmp_path / str(operations)
        with SegmentWriter(directory, segment_bytes=1500, compact_bytes=6000) as writer:
            old = as_data(write_run(writer, additions=40))
        assert len(names(directory)) > 3
        with pytest.MonkeyPatch.context() as patch:
            FailingDisk(patch, operations)
            try:
                SegmentWriter(directory).close()
                crashed = False
            except Crash:
                crashed = True
        SegmentWriter(directory).close()
        assert as_data(read_record(directory / "previous-1")) == old
        assert "previous.partial" not in names(directory)
        if not crashed:
            break
    assert not crashed


CHILD = """
import sys
import numpy as np
from trainwatch.record import RunRecord, SegmentWriter

writer = SegmentWriter(sys.argv[1], segment_bytes=20_000, compact_bytes=40_000)
record = RunRecord(writer)
for i in range(1_000_000):
    record.append("train_loss", "root", np.arange(50) + 50 * i, np.arange(50) + 50.0 * i)
    record.set_fact("run", {"steps": 50 * (i + 1)})
    writer.flush()
    print(i, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 64, 333])
def test_a_killed_process_leaves_all_that_it_flushed(tmp_path: Path, lines: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        for _ in range(lines):
            assert child.stdout.readline()
        child.kill()
    record = read_record(tmp_path)
    series = record.series("train_loss", "root")
    assert series is not None
    assert series.last_step + 1 >= 50 * lines
    assert record.facts["run"]["steps"] in (series.last_step + 1, series.last_step + 1 - 50)
    if not len(series.windows["first"]):
        assert series.steps.tolist() == list(range(series.last_step + 1)) == series.values.tolist()


def test_an_earlier_record_is_moved_aside_and_five_are_kept(tmp_path: Path) -> None:
    written = []
    for seed in range(8):
        with SegmentWriter(tmp_path) as writer:
            written.append(as_data(write_run(writer, additions=10, seed=seed)))
    assert names(tmp_path) == [f"previous-{n}" for n in range(3, 8)] + ["segment-000001.seg"]
    assert as_data(read_record(tmp_path)) == written[-1]
    assert [as_data(read_record(tmp_path / f"previous-{n}")) for n in range(3, 8)] == written[2:7]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    for seed in range(8):
        with SegmentWriter(tmp_path) as writer:
            write_run(writer, additions=5, seed=seed)
        (tmp_path / "notes.txt").write_text("mine")
        if (tmp_path / "previous-1").exists():
            (tmp_path / "previous-1" / "notes.txt").write_text("mine")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert names(tmp_path / "previous-1") == ["notes.txt"]


def test_report_and_event_files_move_with_their_record(tmp_path: Path) -> None:
    companions = ["events.out.tfevents.1.host", "report.html", "report.json", "report.md"]
    for seed in range(2):
        with SegmentWriter(tmp_path) as writer:
            write_run(writer, additions=5, seed=seed)
        for name in companions if seed == 0 else ():
            (tmp_path / name).write_text("of the first run")
    assert names(tmp_path / "previous-1") == [*companions, "segment-000001.seg"]
    assert names(tmp_path) == ["previous-1", "segment-000001.seg"]


def test_a_run_that_recorded_nothing_takes_no_place_among_the_earlier_ones(tmp_path: Path) -> None:
    for _ in range(3):
        SegmentWriter(tmp_path)
    assert names(tmp_path) == ["segment-000001.seg"]


def test_the_first_of_two_writers_in_one_directory_stops_and_says_so(tmp_path: Path) -> None:
    first = SegmentWriter(tmp_path, segment_bytes=1000)
    old = write_run(first, additions=2)
    second = SegmentWriter(tmp_path)
    new = write_run(second, additions=5, seed=9)
    with pytest.raises(RecordError, match="another run has begun"):
        write_run_on(first, old)
    old.set_fact("task", "binary")  # it was said once: no error any more
    first.close()
    assert as_data(read_record(tmp_path)) == as_data(new)
    assert "previous-1" in names(tmp_path)


def write_run_on(writer: SegmentWriter, record: RunRecord) -> None:
    rng, step = np.random.default_rng(3), 10_000
    for _ in range(50):
        step = add_something(record, rng, step)
        writer.flush()


def test_a_full_disk_is_reported_and_what_could_not_be_written_follows_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path)
    record = RunRecord(writer)
    record.set_fact("task", "binary")
    record.append("train_loss", "root", np.arange(100), np.arange(100))
    write = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) < 300:
            raise OSError(28, "No space left on device")
        return write(file, bytes(data[:100]))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RecordError, match="No space left on device"):
            writer.flush()
    record.set_fact("class_names", ["a", "b"])
    writer.flush()
    assert as_data(read_record(tmp_path)) == as_data(record)


def test_a_writer_that_cannot_write_gives_up_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "BUFFER_BYTES", 10_000)
    writer = SegmentWriter(tmp_path)
    record = RunRecord(writer)

    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    errors = 0
    for i in range(100):
        try:
            record.append("grad_norm", "default", np.arange(10) + 10 * i, np.zeros((10, 30)))
        except RecordError:
            errors += 1
    assert errors == 1
    assert len(writer._buffer) == 0
    writer.flush()
    writer.close()


def test_a_full_disk_during_a_compaction_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SegmentWriter(tmp_path, **SMALL)
    record, rng, step, failed = RunRecord(writer), np.random.default_rng(0), 0, 0

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for _ in range(60):
            step = add_something(record, rng, step)
            try:
                writer.flush()
            except RecordError:
                failed += 1
    assert failed > 1
    assert all(n.startswith("segment") for n in names(tmp_path))
    assert as_data(read_record(tmp_path)) == as_data(record)
    while not any(n.startswith("snapshot") for n in names(tmp_path)):
        step = add_something(record, rng, step)
        writer.flush()
    assert as_data(read_record(tmp_path)) == as_data(record)


def test_a_missing_or_unusable_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SegmentWriter(tmp_path / "a" / "b").close()
    assert names(tmp_path / "a" / "b") == ["segment-000001.seg"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"file: it is not a directory; give a log_dir"):
        SegmentWriter(tmp_path / "file")
    with pytest.raises(RecordError, match=r"Not a directory; give a log_dir"):
        SegmentWriter(tmp_path / "file" / "below")

    def forbidden(*args: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(RecordError, match=r"c: Permission denied; give a log_dir"):
        SegmentWriter(tmp_path / "c")


def test_a_closed_writer_takes_nothing_more(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    writer.close()
    writer.close()
    writer.flush()
    with pytest.raises(RecordError, match="is closed"):
        writer.event("fact", {"topic": "task", "value": None})


def test_a_deleted_directory_is_reported(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "run", **SMALL)
    record = write_run(writer, additions=3)
    for path in (tmp_path / "run").iterdir():
        assert NAME.fullmatch(path.name)
        path.unlink()
    (tmp_path / "run").rmdir()
    with pytest.raises(RecordError, match="cannot record into"):
        write_run_on(writer, record)
