"""Remedies for data and classes (§1, §10)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = ()
