from __future__ import annotations

import json
import os
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from record.samples import add_something, as_data, write_run
from trainwatch.record import RecordError, RunRecord, SegmentWriter, find_record, read_record, reader
from trainwatch.record.frames import HEADER, MAGIC, PREFIX, encode

FIRST = "segment-000001.seg"


def small_record(directory: Path) -> tuple[bytes, list[int], list[dict[str, Any]]]:
    """A record in one file: its bytes, the ends of its frames, and what it says after 0, 1, 2 ... of them."""
    with SegmentWriter(directory) as writer:
        record, said, ends = RunRecord(writer), [], [len(HEADER)]
        said.append(as_data(record))
        for i in range(4):
            record.append("train_loss", "root", [2 * i, 2 * i + 1], [1.0, np.nan], {"unscaled": True} if i else None)
            said.append(as_data(record))
        record.set_fact("task", "binary")
        said.append(as_data(record))
        record.add_transition({"code": "TW301", "where": ["é"], "state": "reported", "step": 4})
        said.append(as_data(record))
    said.append(said[-1])
    content = (directory / FIRST).read_bytes()
    while ends[-1] < len(content):
        n_json, n_arrays = struct.unpack_from("<II", content, ends[-1])
        ends.append(ends[-1] + PREFIX + n_json + n_arrays)
    assert len(ends) == len(said)
    return content, ends, said


def read_bytes(directory: Path, content: bytes) -> RunRecord:
    (directory / FIRST).write_bytes(content)
    return read_record(directory)


def framed(text: bytes, arrays: bytes = b"") -> bytes:
    """A frame with a right checksum, whatever is in it."""
    lengths = struct.pack("<II", len(text), len(arrays))
    return lengths + struct.pack("<I", zlib.crc32(lengths + text + arrays)) + text + arrays


def test_a_file_cut_at_any_byte_keeps_what_precedes(tmp_path: Path) -> None:
    content, ends, said = small_record(tmp_path)
    for size in range(len(content)):
        record = read_bytes(tmp_path, content[:size])
        damage = record.facts.pop("damage", [])
        assert as_data(record) == said[sum(end <= size for end in ends[1:])]
        assert bool(damage) == (size not in (0, *ends)), size
        assert all(FIRST in text for text in damage)


def test_a_bit_flipped_at_any_byte_is_noticed(tmp_path: Path) -> None:
    content, ends, said = small_record(tmp_path)
    rng = np.random.default_rng(0)
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << int(rng.integers(8))
        if at < len(HEADER):
            with pytest.raises(RecordError, match=r"not part of|format"):
                read_bytes(tmp_path, bytes(changed))
            continue
        record = read_bytes(tmp_path, bytes(changed))
        assert len(record.facts.pop("damage")) == 1
        assert as_data(record) == said[sum(end <= at for end in ends[1:])]


def test_random_bytes_neither_crash_nor_take_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tracemalloc.start()
    for i in range(300):
        noise = rng.integers(0, 256, int(rng.integers(1, 400)), dtype=np.uint8).tobytes()
        if i % 3 == 0:
            with pytest.raises(RecordError):
                read_bytes(tmp_path, b"\x00" + noise)
        elif i % 3 == 1:
            assert "damage" in read_bytes(tmp_path, HEADER + noise).facts
        else:
            assert "damage" in read_bytes(tmp_path, HEADER + framed(noise)).facts
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


ROWS: dict[str, Any] = {"kind": "rows", "quantity": "q", "key": "k"}
STATE = {"shape": [], "provenance": {}, "width": 1, "folded": 0}
HOSTILE: list[Any] = [
    {},
    [],
    None,
    {"kind": "exec"},
    {"kind": ["fact"]},
    {"kind": "fact"},
    {"kind": "fact", "data": []},
    {"kind": "fact", "data": {"topic": 3, "value": 3}},
    {"kind": "fault", "data": 7},
    {"kind": "dropped", "data": {"faults": "many"}},
    ROWS,
    {**ROWS, "arrays": 3},
    {**ROWS, "arrays": [3]},
    {**ROWS, "arrays": [["|O", [1]], ["<f4", [1]]]},
    {**ROWS, "arrays": [["<i8", [1 << 60]], ["<f4", [1]]]},
    {**ROWS, "arrays": [["<i8", [-1]], ["<f4", [1]]]},
    {**ROWS, "arrays": [["<i8", [1.0]], ["<f4", [1]]]},
    {**ROWS, "arrays": [["<f4", [1]], ["<f4", [1]], ["<f4", [1]]]},
    {**ROWS, "arrays": [["<f4", [1]], ["<i8", [1]]]},
    {**ROWS, "arrays": [["<i8", [1]], ["<f4", [1] * 200]]},
    {**ROWS, "arrays": [["<i8", [1]], ["<f4", [1]]], "provenance": [1]},
    {**ROWS, "key": None, "arrays": [["<i8", [1]], ["<f4", [1]]]},
    {**ROWS, "kind": "series", "meta": STATE, "arrays": [["<i8", [1]], ["<f4", [1]]]},
    {**ROWS, "kind": "series", "meta": {**STATE, "shape": [1 << 40]}, "arrays": [["<f4", [3]]]},
    {**ROWS, "kind": "series", "meta": {**STATE, "shape": "ab"}, "arrays": [["<f4", [3]]]},
    {**ROWS, "kind": "series", "meta": {}, "arrays": [["<f4", [3]]]},
    {**ROWS, "kind": "series", "meta": [], "arrays": [["<f4", [3]]]},
]


@pytest.mark.parametrize("head", HOSTILE, ids=lambda head: json.dumps(head)[:60])
def test_a_hostile_frame_with_a_right_checksum_is_left_out_and_stated(tmp_path: Path, head: Any) -> None:
    arrays = b"\0" * 12
    if isinstance(head, dict) and "arrays" not in head:
        arrays = b""
    tracemalloc.start()
    record = read_bytes(tmp_path, HEADER + framed(json.dumps(head).encode(), arrays))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert record.facts.pop("damage")
    assert as_data(record) == as_data(RunRecord())
    assert peak < 1e6


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"\xff\xfe\x00", b'{"kind":"fact","data":{"topic":"a'],
    ids=lambda text: repr(text[:5]),
)  # fmt: skip
def test_a_hostile_json_is_left_out_and_stated(tmp_path: Path, text: bytes) -> None:
    assert list(read_bytes(tmp_path, HEADER + framed(text)).facts) == ["damage"]


def test_altered_frames_with_right_checksums_never_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainwatch.record.series.ROWS", (16, 64))
    monkeypatch.setattr("trainwatch.record.series.WINDOWS", (4, 8))
    with SegmentWriter(tmp_path / "source") as writer:
        record = write_run(writer, additions=60)
    whole = [encode(head, arrays) for head, arrays in reader.state_frames(record)]
    rows = encode({**ROWS, "provenance": {"unscaled": True}}, [np.arange(3), np.ones((3, 2), np.float32)])
    rng, left_out = np.random.default_rng(2), 0
    tokens = [b"-1", b"0", b"9" * 20, b"1e999", b"NaN", b"null", b"[]", b"{}", b'"x"', b"true", b"[[", b"<i8", b"<f4"]
    for _ in range(1500):
        frame = rows if rng.random() < 0.3 else whole[int(rng.integers(len(whole)))]
        n_json = struct.unpack_from("<I", frame)[0]
        text = bytearray(frame[PREFIX : PREFIX + n_json])
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(text)))
            if rng.random() < 0.5:
                text[at] = int(rng.integers(32, 127))
            else:
                digits = [i for i, c in enumerate(text) if chr(c).isdigit()] or [at]
                at = digits[int(rng.integers(len(digits)))]
                text[at : at + 1] = tokens[int(rng.integers(len(tokens)))]
        read = read_bytes(tmp_path, HEADER + framed(bytes(text), frame[PREFIX + n_json :]) + rows)
        left_out += "damage" in read.facts
        for _, _, series in read.items():
            assert (np.diff(series.history()[0]) >= 0).all()
            series.append(series.last_step + 1 + np.arange(200), np.zeros((200, *series.shape)))
    assert left_out > 700


def test_false_lengths_ask_for_no_memory(tmp_path: Path) -> None:
    with (tmp_path / FIRST).open("wb") as file:
        file.write(HEADER + struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 0))
        file.truncate(1 << 36)  # sparse: takes no room
    tracemalloc.start()
    assert "states a length" in read_record(tmp_path).facts["damage"][0]
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_too_many_series_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_SERIES", 10)
    with SegmentWriter(tmp_path) as writer:
        record = RunRecord(writer)
        for i in range(60):
            record.append("metric", f"m{i}", 0, 1.0)
    read = read_record(tmp_path)
    assert len(read.items()) == 10
    assert len(read.facts["damage"]) == reader.NOTES + 1
    assert read.facts["damage"][-1] == "and 30 more"


def test_damage_in_the_middle_costs_the_rest_of_one_file(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, segment_bytes=300) as writer:
        record = RunRecord(writer)
        for i in range(20):
            record.append("train_loss", "root", np.arange(10) + 10 * i, np.ones(10))
            writer.flush()
    damaged = tmp_path / "segment-000003.seg"
    content = bytearray(damaged.read_bytes())
    content[len(HEADER) + 50] ^= 1
    damaged.write_bytes(content)
    read = read_record(tmp_path)
    assert [text[:18] for text in read.facts["damage"]] == ["segment-000003.seg"]
    series = read.series("train_loss", "root")
    assert series is not None
    assert series.last_step == 199
    assert 150 < len(series) < 200


def test_a_closed_segment_that_was_cut_between_frames_is_noticed(tmp_path: Path) -> None:
    content, ends, _ = small_record(tmp_path)
    (tmp_path / "segment-000002.seg").write_bytes(HEADER)
    assert "ends before it was closed" in read_bytes(tmp_path, content[: ends[2]]).facts["damage"][0]


def test_a_missing_segment_is_stated(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, segment_bytes=1000) as writer:
        write_run(writer, additions=30)
    for number in (2, 4, 5):
        (tmp_path / f"segment-{number:06d}.seg").unlink()
    assert read_record(tmp_path).facts["damage"][0] == "missing segments: 2, 4 to 5"


def test_damage_is_still_stated_after_a_compaction(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=1000, compact_bytes=8000)
    record, rng, step = RunRecord(writer), np.random.default_rng(0), 0
    while not (tmp_path / "segment-000003.seg").exists():
        step = add_something(record, rng, step)
        writer.flush()
    (tmp_path / "segment-000002.seg").write_bytes(HEADER + b"damage")
    while (tmp_path / "segment-000003.seg").exists():
        step = add_something(record, rng, step)
        writer.flush()
    assert any("segment-000002.seg" in text for text in read_record(tmp_path).facts["damage"])


def test_a_reader_copes_with_a_writer_that_compacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, calls, busy = reader.frames, 0, False
    writer = SegmentWriter(tmp_path, segment_bytes=1000, compact_bytes=4000)
    record = write_run(writer, additions=20)
    rng, step = np.random.default_rng(1), 10_000

    def frames_while_writing(path: Path) -> Iterator[Any]:
        nonlocal calls, busy, step
        calls += 1
        if not busy and calls < 20:  # the writer's own compaction reads too
            busy = True
            before = {p.name for p in tmp_path.iterdir() if p.name.startswith("snapshot")}
            while before == {p.name for p in tmp_path.iterdir() if p.name.startswith("snapshot")}:
                step = add_something(record, rng, step)
                writer.flush()
            busy = False
        return frames(path)

    monkeypatch.setattr(reader, "frames", frames_while_writing)
    at_first = as_data(record)
    read = read_record(tmp_path)
    assert calls > 3
    assert as_data(read) == as_data(record) != at_first


def test_a_listing_made_during_a_compaction_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=1000, compact_bytes=4000)
    record, rng, step = RunRecord(writer), np.random.default_rng(0), 0
    while not any(p.name.startswith("snapshot") for p in tmp_path.iterdir()):
        step = add_something(record, rng, step)
        writer.flush()
    record.append("train_loss", "late", 0, 1.0)
    writer.flush()
    listed, calls = reader._listed, 0

    def without_the_snapshot(directory: Path) -> Any:
        nonlocal calls
        calls += 1
        return {k: p for k, p in listed(directory).items() if calls > 5 or k[0] != "snapshot"}

    monkeypatch.setattr(reader, "_listed", without_the_snapshot)
    assert as_data(read_record(tmp_path)) == as_data(record)


def test_files_that_vanish_again_and_again_end_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_record(tmp_path)

    def vanish(path: Path) -> Iterator[Any]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(reader, "frames", vanish)
    with pytest.raises(RecordError, match="vanish while they are read"):
        read_record(tmp_path)


def test_where_a_record_is_found(tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "exp1" / "trainwatch"
    small_record(directory)
    assert find_record(tmp_path / "runs" / "exp1") == find_record(str(directory)) == directory
    with pytest.raises(RecordError, match=r"runs holds no record .*there are records in .*exp1$"):
        find_record(tmp_path / "runs")


def test_where_none_is_found(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="gone does not exist; give the directory"):
        read_record(tmp_path / "gone")
    with pytest.raises(RecordError, match=r"holds no record of trainwatch; was the run given a log_dir\?"):
        read_record(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="is not a directory"):
        read_record(tmp_path / "file")
    with pytest.raises(RecordError):
        read_record("a\0b")


def test_a_foreign_file_and_a_newer_format(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not part of a trainwatch record"):
        read_bytes(tmp_path, b"step,loss\n1,0.5\n")
    with pytest.raises(RecordError, match="of format 9, and this trainwatch reads format 1"):
        read_bytes(tmp_path, MAGIC + b"\x09")


def test_a_pipe_under_the_name_of_a_segment_does_not_block(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names here")
    os.mkfifo(tmp_path / FIRST)
    with pytest.raises(RecordError, match="holds no record"):
        read_record(tmp_path)


def test_a_frame_too_large_to_be_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainwatch.record.frames.MOST_ARRAYS", 100)
    encode({"kind": "rows"}, [np.zeros(25, np.float32)])
    with pytest.raises(ValueError, match="too large"):
        encode({"kind": "rows"}, [np.zeros(26, np.float32)])
