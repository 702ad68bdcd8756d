"""Remedies for fit: overfitting and underfitting (§2, §3, §15)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = ()
