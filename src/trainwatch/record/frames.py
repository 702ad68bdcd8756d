"""The file format of a record: a header, then frames of JSON and raw arrays, each with a checksum. No pickle.

A file begins with `HEADER`. A frame is::

    length of the JSON     u32  little-endian, as everything here
    length of the arrays   u32
    CRC-32                 u32  of the two lengths and of all that follows
    JSON (UTF-8)                {"kind": ..., "arrays": [[dtype, shape], ...], ...}
    arrays                      in that order, C-contiguous

The last frame of a file that was closed properly is of kind ``end``.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trainwatch.record.series import Array

VERSION = 1
MAGIC = b"\x93TWREC\n"  # not text, and damaged by what converts line ends
HEADER = MAGIC + bytes([VERSION])
DTYPES = ("<f4", "<i4", "<i8")
MOST_JSON = 1 << 25  # bytes in one frame
MOST_ARRAYS = 1 << 28
_LENGTHS = struct.Struct("<II")
_CRC = struct.Struct("<I")
_JSON = json.JSONEncoder(separators=(",", ":"))
PREFIX = _LENGTHS.size + _CRC.size

Frame = tuple[dict[str, Any], list[Array]]


class RecordError(OSError):
    """A record that cannot be written or read; the text names the path and the remedy."""


class ForeignFile(ValueError):
    """A file that is no part of a record, or one of a newer version."""


class Damage(ValueError):
    """Bytes that are not the frame that was written there."""


def encode(head: dict[str, Any], arrays: Sequence[Array] = ()) -> bytes:
    """One frame.

    Raises:
        ValueError: It is too large.
    """
    typed = [np.ascontiguousarray(a, a.dtype.newbyteorder("<")) for a in arrays]
    if typed:
        head = {**head, "arrays": [[a.dtype.str, a.shape] for a in typed]}
    text = _JSON.encode(head).encode()
    body = b"".join([text, *(a.tobytes() for a in typed)])
    if len(text) > MOST_JSON or len(body) - len(text) > MOST_ARRAYS:
        raise ValueError(f"a frame of kind {head.get('kind')!r} with {len(body)} bytes is too large for a record")
    lengths = _LENGTHS.pack(len(text), len(body) - len(text))
    return lengths + _CRC.pack(zlib.crc32(body, zlib.crc32(lengths))) + body


def frames(path: Path) -> Iterator[Frame]:
    """The frames of a file, in order.

    Raises:
        ForeignFile: The file does not begin as one of a record does.
        Damage: What follows the frames that were given out is no frame: torn at the end, or altered.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(len(HEADER))
        if start[: len(MAGIC)] != MAGIC[: len(start)]:
            raise ForeignFile("it is not part of a trainwatch record")
        if len(start) == len(HEADER) and start[-1] != VERSION:
            raise ForeignFile(
                f"it is of format {start[-1]}, and this trainwatch reads format {VERSION}; "
                "read it with the version that wrote it"
            )
        if 0 < len(start) < len(HEADER):
            raise Damage("the file breaks off within its header")
        yield from frames_in(file, len(start), size)


def frames_in(file: BinaryIO, at: int, size: int) -> Iterator[Frame]:
    """The frames from a place to the end.

    Args:
        file: Open at that place.
        at: The place.
        size: Bytes of the whole.

    Raises:
        Damage: As `frames` does.
    """
    while at < size:
        prefix = file.read(PREFIX)
        if len(prefix) < PREFIX:
            raise Damage(f"a frame breaks off at byte {at}")
        n_json, n_arrays = _LENGTHS.unpack_from(prefix)
        # Checked before anything is read, so that false lengths cannot ask for memory.
        if n_json > MOST_JSON or n_arrays > MOST_ARRAYS:
            raise Damage(f"the frame at byte {at} states a length that none has")
        if at + PREFIX + n_json + n_arrays > size:
            raise Damage(f"the frame at byte {at} is longer than the rest of the file")
        body = file.read(n_json + n_arrays)
        if zlib.crc32(body, zlib.crc32(prefix[: _LENGTHS.size])) != _CRC.unpack_from(prefix, _LENGTHS.size)[0]:
            raise Damage(f"the frame at byte {at} does not match its checksum")
        try:
            frame = _decode(body, n_json)
        except (ValueError, TypeError, RecursionError) as error:
            raise Damage(f"the frame at byte {at} cannot be understood: {str(error)[:200]}") from None
        yield frame
        at += PREFIX + n_json + n_arrays


def _decode(body: bytes, n_json: int) -> Frame:
    head = json.loads(body[:n_json])
    if not isinstance(head, dict) or not isinstance(head.get("arrays", []), list):
        raise ValueError("its header is of another form")
    arrays, at = [], n_json
    for dtype, shape in head.pop("arrays", []):
        if dtype not in DTYPES or not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("an array is of a type or shape that none has")
        count = math.prod(shape)
        if at + count * np.dtype(dtype).itemsize > len(body):
            raise ValueError("its arrays are longer than the frame")
        flat = np.frombuffer(body, dtype, count, at)
        arrays.append(flat.astype(flat.dtype.newbyteorder("=")).reshape(shape))
        at += flat.nbytes
    if at != len(body):
        raise ValueError("its arrays are shorter than the frame")
    return head, arrays
