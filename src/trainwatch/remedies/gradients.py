"""Remedies for gradients and activations (§9)."""

from trainwatch.remedies.entry import RemedyEntry

ENTRIES: tuple[RemedyEntry, ...] = ()
