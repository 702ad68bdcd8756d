"""The remedy `dropout`, and what was measured that speaks for it or against it (§6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import ProbeRequest
from trainwatch.symptoms.votes import KINDS, SHOWN, co_adaptation, told, vote

VOTES = ProbeRequest("votes", (), "more or less dropout: do sub-networks vote better, are hidden units alike?", 0.25)
MORE, MOST, FIRST = 0.2, 0.5, 0.2


def dropout(record: RunRecord) -> Remedy:
    """The remedy: where, the present p, and the numbers that were measured for it."""
    layers: list[dict[str, Any]] = (record.facts.get("regularisation") or {}).get("dropout") or []
    p, names = max((float(d["p"]) for d in layers), default=0.0), ", ".join(str(d["name"]) for d in layers)
    alike = ", ".join(f"'{one.name}'" for one in record.memo(co_adaptation)[:SHOWN])
    unused = f"before {alike}, whose inputs are most alike" if alike else "after the activations of wide hidden layers"
    return remedy(
        "dropout",
        already_in_use=p > 0,
        present=f"p = {p:g} in {names}" if p else "none",
        proposed=max(p, min(round(p + MORE, 2), MOST)) if p else FIRST,
        where=names if p else unused,
        measured=told(record),
        next_step=_next(p),
    )


def _next(p: float) -> str:
    if not p:
        return "# Not in use yet."
    return "# In use already: next, raise p." if p < MOST else "# In use already, as strong as it is worth trying."


def dropout_evidence(record: RunRecord) -> Iterator[Evidence]:
    """Vote gain and co-adaptation, where they were measured."""
    taken = record.memo(vote)
    if taken is not None:
        note = (
            f"of {taken.passes} passes with dropout awake on {taken.samples} {KINDS[taken.kind]} samples, over one "
            f"pass without; +- {taken.error:.1g}; loss {taken.alone:.4g} to {taken.vote:.4g}, of a single such pass "
            f"{taken.single:.4g}"
        )
        yield Evidence("gain of a vote of sub-networks", taken.gain, step=taken.step, note=note)
    for one in record.memo(co_adaptation)[:SHOWN]:
        note = f"mean absolute correlation of {one.units} units on {one.samples} samples; {one.chance:.2f} by chance"
        yield Evidence("co-adaptation of hidden units", one.correlation, where=one.name, step=one.step, note=note)
