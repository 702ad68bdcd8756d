"""Remedies for wiring mistakes (§6)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = ()
