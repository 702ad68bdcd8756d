"""How the gates of a run stand and how sharp its attention is, from the latest probe of them."""

from __future__ import annotations

from dataclasses import dataclass

from trainwatch.record import RunRecord
from trainwatch.symptoms.probed import probed

RECURRENT = ("lstm", "gru")
# Gates behind which nothing changes any more where they are shut, or open.
BLOCK_SHUT = ("input", "forget", "output", "sigmoid", "hardsigmoid", "tanh", "glu")
BLOCK_OPEN = ("update",)


@dataclass(frozen=True)
class Gate:
    """One gate, on held training batches in evaluation mode.

    Attributes:
        site: Its name in the record: module and function.
        module: The recurrent module, or the innermost one that its function is called in.
        kind: ``lstm``, ``gru``, ``glu`` or ``product``.
        function: ``input``, ``forget``, ``output``, ``reset``, ``update``, ``sigmoid`` ...
        layer: The layer that its function is given the output of, if it is just one.
        step: Optimiser steps before the probe.
        shut: Share of units that are always near 0, be it for all steps of a sequence together.
        open: Share of units that are always near 1, likewise.
        low: Share of entries near 0.
        high: Share of entries near 1.
        mean: Of all entries.
        entries: Entries of each unit that were looked at: samples times positions.
        units: Units of the gate.
        first: `shut`, `open` and `low + high` at the first probe; `first_step` is its step.
        first_step: See there.
    """

    site: str
    module: str
    kind: str
    function: str
    layer: str
    step: int
    shut: float
    open: float
    low: float
    high: float
    mean: float
    entries: int
    units: int
    first: tuple[float, float, float]
    first_step: int

    @property
    def extreme(self) -> float:
        """Share of entries at either end, where the gate's function is flat."""
        return self.low + self.high

    @property
    def note(self) -> str:
        """What was looked at, in words."""
        return f"{self.units} units, {self.entries} entries of each, {self.mean:.2g} on average"

    @property
    def recurrent(self) -> bool:
        return self.kind in RECURRENT

    @property
    def place(self) -> str:
        """Suffix of the parameters that make a recurrent gate: ``_l0``, ``_l1_reverse``; empty for a cell."""
        return self.site.rpartition(":")[2].removeprefix(self.function)

    @property
    def blocks_shut(self) -> bool:
        return self.function in BLOCK_SHUT

    @property
    def blocks_open(self) -> bool:
        return self.function in BLOCK_OPEN


@dataclass(frozen=True)
class Attention:
    """The rows of one attention, on held training batches in evaluation mode.

    Attributes:
        site: Its name in the record: module and function.
        module: Innermost module that it is computed in.
        step: Optimiser steps before the probe.
        sharp: Share of rows whose largest weight is above 0.99.
        least: That share in the head that has fewest.
        flat: Share of rows whose weights are equal within 1 %.
        largest: Mean of the largest weights.
        rows: Rows that were looked at.
        heads: Heads that they are of.
        first: `sharp` at the first probe; `first_step` is its step.
        first_step: See there.
    """

    site: str
    module: str
    step: int
    sharp: float
    least: float
    flat: float
    largest: float
    rows: int
    heads: int
    first: float
    first_step: int

    @property
    def note(self) -> str:
        """What was looked at, in words."""
        return f"{self.rows} rows of {self.heads} heads, {self.least:.0%} in the head that has fewest"


def gates_of(record: RunRecord) -> list[Gate]:
    """The gates of a run in order of execution, for `RunRecord.memo`."""
    found = []
    for site, facts, steps, rows in probed(record, "gates", "gates"):
        shut, opened, low, high, mean, entries, units = (float(v) for v in rows[-1])
        first = (float(rows[0][0]), float(rows[0][1]), float(rows[0][2] + rows[0][3]))
        found.append(
            Gate(site, facts["module"], facts["kind"], facts["function"], facts["layer"], int(steps[-1]), shut, opened,
                 low, high, mean, round(entries), round(units), first, int(steps[0]))
        )  # fmt: skip
    return found


def attentions_of(record: RunRecord) -> list[Attention]:
    """The attentions of a run in order of execution, for `RunRecord.memo`."""
    found = []
    for site, facts, steps, rows in probed(record, "attention", "gates"):
        sharp, least, flat, largest, n, heads = (float(v) for v in rows[-1])
        found.append(
            Attention(site, facts["module"], int(steps[-1]), sharp, least, flat, largest, round(n), round(heads),
                      float(rows[0][0]), int(steps[0]))
        )  # fmt: skip
    return found


def belongs_to_gate(record: RunRecord, activation: str, module: str, function: str) -> bool:
    """Whether an activation is a gate, as far as a probe of gates has looked."""
    known = record.facts.get("gates", {}).values()
    inside = any(g["module"] == module and g["kind"] in RECURRENT for g in known)
    return (inside and function == "sigmoid") or any(activation in g.get("activations", ()) for g in known)
