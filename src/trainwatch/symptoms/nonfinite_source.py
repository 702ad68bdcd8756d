"""Where the first value that is not finite came from, as running its batch again told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainwatch.record import RunRecord

NOT_RUN = ("not replayed", "not reproduced")
HELD_BEFORE = ("input", "target", "parameter")


@dataclass(frozen=True)
class Operand:
    """What an operation was given.

    Attributes:
        name: As the operation calls it.
        low, high: Smallest and largest finite value; None where there is none.
        nonfinite: Entries that are not finite.
        dtype: Type of the entries; empty for a plain number.
    """

    name: str
    low: float | None
    high: float | None
    nonfinite: int
    dtype: str


@dataclass(frozen=True)
class Source:
    """The first value that was not finite.

    Attributes:
        step: Step at which it was made.
        seen: ``loss`` or ``gradient``: where it was seen.
        phase: ``forward`` or ``backward``, ``input``, ``target`` or ``parameter`` where it was there before the step,
            ``not reproduced`` or ``not replayed``.
        module: Name of the module that made it, or of the tensor that held it; empty where it is the model or the loss.
        module_type: Type of that module; empty where the loss made it.
        operation: Name of the operation.
        operands: What the operation was given; for one of the backward pass, what it was given in the forward pass.
        dtype: Type of its result.
        samples: The first of the samples concerned, by their place in the batch.
        samples_bad, samples_total: Samples concerned (0: it cannot be told), and samples in the batch.
        reason: Why it is not known.
    """

    step: int
    seen: str
    phase: str
    module: str
    module_type: str
    operation: str
    operands: tuple[Operand, ...]
    dtype: str
    samples: tuple[int, ...]
    samples_bad: int
    samples_total: int
    reason: str

    @property
    def found(self) -> bool:
        return self.phase not in NOT_RUN

    @property
    def held_before(self) -> bool:
        """It was in the data or the weights when the step began."""
        return self.phase in HELD_BEFORE


def source_of(record: RunRecord, first: int, last: int) -> Source | None:
    """What is known of a step in a range, ends included; None where no step in it was run again."""
    fact: dict[str, Any] = record.facts.get("nonfinite") or {}
    if not first <= fact.get("step", -1) <= last:
        return None
    operands = (Operand(o["name"], o["min"], o["max"], o["nonfinite"], o["dtype"]) for o in fact["inputs"])
    same = (
        "step",
        "seen",
        "phase",
        "module",
        "module_type",
        "operation",
        "dtype",
        "samples_bad",
        "samples_total",
        "reason",
    )
    return Source(**{k: fact[k] for k in same}, operands=tuple(operands), samples=tuple(fact["samples"]))
