"""The run as plain arrays and facts. Readable without torch."""

from trainwatch.record.frames import RecordError
from trainwatch.record.reader import find_record, packed, read_record, unpack
from trainwatch.record.run_record import Journal, RunRecord
from trainwatch.record.segments import SegmentWriter
from trainwatch.record.series import Series

__all__ = [
    "Journal",
    "RecordError",
    "RunRecord",
    "SegmentWriter",
    "Series",
    "find_record",
    "packed",
    "read_record",
    "unpack",
]
