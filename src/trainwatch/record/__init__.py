"""The run as plain arrays and facts. Readable without torch."""

from trainwatch.record.run_record import RunRecord
from trainwatch.record.series import Series

__all__ = ["RunRecord", "Series"]
