"""How alive the hidden units of a run are, from the latest probe of its activations."""

from __future__ import annotations

from dataclasses import dataclass

from trainwatch.record import RunRecord
from trainwatch.symptoms.probed import probed

# Functions that let nothing pass below a bound, and those that are flat at both ends.
RECTIFYING = ("relu", "threshold", "hardtanh")
SQUASHING = ("sigmoid", "tanh")


@dataclass(frozen=True)
class Activity:
    """One activation function in the forward pass, on held training batches in evaluation mode.

    Attributes:
        site: Its name in the record: module and function.
        module: Innermost module that it is called in.
        function: ``relu``, ``tanh`` ...
        step: Optimiser steps before the probe.
        dead: Share of units that no sample activates.
        rare: Share of units that at most one entry in a hundred activates, dead ones included.
        flat: Share of entries at which a squashing function has lost 95 % of its slope.
        rms: Root mean square of what it returns.
        entries: Entries of each unit that were looked at: samples times positions.
        units: Units (channels, features).
        first: `dead` or, of a squashing function, `flat` at the first probe; `first_step` is its step.
        first_step: See there.
    """

    site: str
    module: str
    function: str
    step: int
    dead: float
    rare: float
    flat: float
    rms: float
    entries: int
    units: int
    first: float
    first_step: int

    @property
    def rectifies(self) -> bool:
        return self.function in RECTIFYING

    @property
    def squashes(self) -> bool:
        return self.function in SQUASHING


def activities(record: RunRecord) -> list[Activity]:
    """The activations of a run in order of execution, for `RunRecord.memo`."""
    found = []
    for site, facts, steps, rows in probed(record, "activity", "activations"):
        dead, rare, flat, rms, entries, units = (float(v) for v in rows[-1])
        first = float(rows[0][2 if facts["function"] in SQUASHING else 0])
        found.append(
            Activity(site, facts["module"], facts["function"], int(steps[-1]), dead, rare, flat, rms, round(entries),
                     round(units), first, int(steps[0]))
        )  # fmt: skip
    return found
