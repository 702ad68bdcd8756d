"""Remedies for step size and schedule."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = ()
