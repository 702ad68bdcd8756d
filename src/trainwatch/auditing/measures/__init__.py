"""Questions about data, one file each: from `Samples` to a record that the rules judge."""

from trainwatch.auditing.measures.asked import AUDITED, measured

__all__ = ["AUDITED", "measured"]
