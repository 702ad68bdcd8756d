"""What TW306 finds: a gate or an attention, and how it is stuck."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.rules.gate_remedies import for_attention, for_gate
from trainwatch.symptoms.gates import Attention, Gate

SHUT, OPEN = "always near 0", "always near 1"  # units
LOW, HIGH, FLAT = "near 0", "near 1", "near 0 or 1"  # entries
SHARP = "with all weight on one entry"


@dataclass(frozen=True)
class Stuck:
    """A gate or an attention that is stuck: how, by which share against which limit, and out of how many."""

    place: Gate | Attention
    how: str
    share: float
    limit: float
    first: float
    n: int

    @property
    def what(self) -> str:
        return "the units of" if self.how in (SHUT, OPEN) else "the rows of" if self.how == SHARP else "the entries of"

    @property
    def margin(self) -> float:
        error = float(np.sqrt(max(self.share * (1 - self.share), 1 / self.n) / self.n))
        return (self.share - self.limit) / error

    def remedies(self, record: RunRecord, found: Iterable[Stuck]) -> Iterator[Remedy]:
        """What to do about it, with numbers of the run; all that were found to be stuck are begun anew together."""
        if isinstance(self.place, Attention):
            yield from for_attention(record, self.place)
        else:
            layers = [s.place.layer for s in found if isinstance(s.place, Gate) and not s.place.recurrent]
            yield from for_gate(record, self.place, flat=self.how == FLAT, stuck=layers)
