"""What TW309 says of the weights that a run began with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainwatch.diagnosis import Evidence
from trainwatch.record import RunRecord

SHOWN = 3
BOUNDED = ("Softmax", "Sigmoid", "Tanh")  # what a squashed answer is made by


@dataclass(frozen=True)
class Beginning:
    """Weights that begin where they should not.

    Attributes:
        weights: Their facts.
        gain: Deviation times the root of the fan-in; `limit` is what it should be above, or below.
        what: In words.
    """

    weights: list[dict[str, Any]]
    gain: float
    limit: float
    what: str

    @property
    def layers(self) -> tuple[str, ...]:
        """Their modules."""
        return tuple(str(w["module"] or "model") for w in self.weights)

    @property
    def named(self) -> str:
        """Some of their modules, in words."""
        more = f" and {len(self.layers) - SHOWN} more" if len(self.layers) > SHOWN else ""
        return ", ".join(self.layers[:SHOWN]) + more

    @property
    def shown(self) -> Evidence:
        """The gain beside its limit."""
        name = "gain: deviation times the root of the fan-in"
        note = "0.58 by torch's default, 1 to 1.4 by Xavier and Kaiming"
        return Evidence(name, self.gain, self.limit, where=self.named, step=0, note=note)


def without_bound(record: RunRecord, stream: str) -> bool:
    """A squared error of answers that nothing holds within bounds: the least excess multiplies it."""
    known = record.facts.get("loss", {}).get(stream, {})
    return record.facts.get("task") == "regression" and known.get("last_operation") not in BOUNDED
