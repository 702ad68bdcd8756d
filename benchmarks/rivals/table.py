"""The table of rivals side by side: who says what on the same runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from benchmarks.rivals.installed import adapter
from benchmarks.rivals.installed.adapter import PUBLISHED
from benchmarks.zoo.score import Outcome, Said, share

UNKNOWN = frozenset({"other"})
"""An alarm of which no adapter knows what it means is one all the same."""


def heard(name: str, said: Mapping[str, Sequence[Sequence[str]]], heeded: Mapping[str, Any] | None = None) -> Said:
    """What an installed package said of a run, in our codes.

    Args:
        name: Of the package.
        said: Setting -> alarms, each a name and a severity.
        heeded: What tuning found; without it the published setting, of which every warning counts.
    """
    codes = adapter(name).codes
    if heeded is None:
        return Said(tuple(codes.get(alarm, UNKNOWN) for alarm, severity in said[PUBLISHED] if severity != "info"))
    counted = [
        alarm
        for alarm, severity in said[heeded["setting"]]
        if alarm in heeded["remarks"] or (alarm in heeded["warnings"] and severity != "info")
    ]
    return Said(tuple(codes[alarm] for alarm in counted))


def table(outcomes: Mapping[str, Sequence[Outcome]], title: str) -> Table:
    """One row a rival, all over the same runs."""
    drawn = Table(title=title)
    for column in ("", "cause found", "ranked first", "sound runs alarmed", "untrue beside", "precision"):
        drawn.add_column(column)
    for name, some in outcomes.items():
        faulty = [o for o in some if o.scenario.planted]
        sound = [o for o in some if not o.scenario.planted]
        alarmed = [o for o in some if (o.scenario.planted and o.said.causes) or o.beside]
        shares = (
            share(faulty, lambda o: o.found),
            share(faulty, lambda o: o.first),
            share(sound, lambda o: not o.silent),
            share(faulty, lambda o: bool(o.beside)),
            share(alarmed, lambda o: o.scenario.planted and o.found),
        )
        drawn.add_row(name, *map(str, shares))
    runs = next(iter(outcomes.values()))
    faulty = sum(o.scenario.planted for o in runs)
    drawn.caption = (
        f"{faulty} faulty and {len(runs) - faulty} sound runs, the same for all; precision: of the runs with any "
        "alarm, those whose cause is named; in brackets 95 % intervals over families"
    )
    return drawn


def better(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> list[str]:
    """Runs of the tuning half whose cause the other names and we do not."""
    known = {(o.scenario.family, o.scenario.form, o.seed): o for o in ours}
    found = []
    for o in theirs:
        if o.scenario.half != "tuning":
            raise ValueError("cases of the held-out half are not to be looked at")
        if o.scenario.planted and o.found and not known[(o.scenario.family, o.scenario.form, o.seed)].found:
            found.append(f"{o.scenario.family}/{o.scenario.form}-{o.seed} ({'/'.join(o.scenario.truth)})")
    return found
