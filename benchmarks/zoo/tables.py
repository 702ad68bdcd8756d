"""The zoo's tables, as Rich draws them. Of the held-out half there are totals only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from benchmarks.zoo.calibration import Fitted
from benchmarks.zoo.cures import AFTERWARDS, Cure
from benchmarks.zoo.score import Outcome, Totals, confusion, share


def totals_table(rows: dict[str, Totals], title: str) -> Table:
    """One row a judge."""
    table = Table(title=title)
    for column in ("", "cause found", "ranked first", "pairs", "sound runs alarmed", "untrue beside"):
        table.add_column(column)
    for name, t in rows.items():
        table.add_row(name, *(str(s) for s in (t.found, t.first, t.pairs, t.alarmed, t.beside)))
    first = next(iter(rows.values()))
    table.caption = (
        f"{first.found.runs} faulty runs of {first.found.families} families, {first.alarmed.runs} sound runs of "
        f"{first.alarmed.families}; in brackets 95 % intervals over families"
    )
    return table


def rule_table(outcomes: Sequence[Outcome]) -> Table:
    """One row a rule: when it should fire, when it should not, its rank, and how soon it was reported."""
    table = Table(title="rules, tuning half")
    for column in ("rule", "fired when it should", "first", "fired when it should not", "median reported at"):
        table.add_column(column)
    codes = {c for o in outcomes for c in (*o.scenario.truth, *o.said.codes)}
    for code in sorted(codes):
        should = [o for o in outcomes if code in o.scenario.truth]
        alone = [o for o in should if o.said.codes & set(o.scenario.truth) == {code} or o.scenario.truth == (code,)]
        should_not = [o for o in outcomes if code not in o.true]
        wrong = share(should_not, lambda o, code=code: code in o.beside)
        times = [at / max(o.said.steps, 1) for o in should for said, at in o.said.reported if said == code]
        table.add_row(
            code,
            str(share(alone, lambda o, code=code: code in o.said.codes)),
            str(share(alone, lambda o: o.first)),
            f"{round(wrong.value * wrong.runs) if wrong.runs else 0} of {wrong.runs} runs",
            f"{np.median(times):.0%} of the run" if times else "-",
        )
    return table


def fit_table(told: dict[str, Fitted]) -> Table:
    """How the curves of confidence were chosen, one row a kind of diagnosis."""
    table = Table(title="confidence, tuning half")
    for column in (
        "",
        "diagnoses",
        "families",
        "right",
        "spread between rules",
        "log loss",
        "all rules alike",
        "lapse",
    ):
        table.add_column(column)
    for kind, f in told.items():
        pooled = next(iter(f.losses.values()))
        table.add_row(kind, str(f.cases), str(f.families), f"{f.right:.3f}", str(f.spread),
                      f"{f.losses[f.spread]:.4f}", f"{pooled:.4f}", f"{f.curve.lapse:.3f}")  # fmt: skip
    table.caption = "log loss of families left out, in nats"
    return table


def confusion_table(outcomes: Sequence[Outcome]) -> Table:
    """Truth by first-ranked diagnosis."""
    rows = confusion(outcomes)
    columns = sorted({said for row in rows.values() for said in row})
    table = Table(title="first diagnosis by truth, tuning half")
    for column in ("truth", *columns):
        table.add_column(column)
    for truth, row in rows.items():
        table.add_row(truth, *(str(row.get(said, "")) for said in columns))
    return table


def mistakes(outcomes: Sequence[Outcome]) -> Table:
    """Every run of the tuning half that was not judged as it should be."""
    table = Table(title="misses and false alarms, tuning half")
    for column in ("family", "form", "seed", "truth", "said first", "nested", "what is wrong"):
        table.add_column(column)
    for o in outcomes:
        if o.scenario.half != "tuning":
            raise ValueError("cases of the held-out half are not to be looked at")
        if o.wrong:
            table.add_row(o.scenario.family, o.scenario.form, str(o.seed), "/".join(o.scenario.truth),
                          o.said.ranking, ", ".join(sorted(o.said.nested)), "; ".join(o.wrong))  # fmt: skip
    return table


def cure_table(cures: Sequence[Cure], title: str, each: bool = True) -> Table:
    """What first remedies did, one row a remedy where `each`; the rest are those that need a choice of one's own."""
    tried = [c for c in cures if c.mechanical]
    table = Table(title=title)
    for column in ("first remedy", "runs", "families", "fault gone", "cured", "quality before", "after (medians)"):
        table.add_column(column)
    groups = [[c for c in tried if c.remedy == name] for name in sorted({str(c.remedy) for c in tried})] if each else []
    for some in [*groups, tried]:
        if not some:
            continue
        table.add_row(
            "all" if some is tried else some[0].remedy,
            str(len(some)),
            str(len({c.scenario.family for c in some})),
            "-" if some[0].remedy in AFTERWARDS and some is not tried else str(sum(c.gone for c in some)),
            f"{sum(c.cured for c in some)} ({sum(c.cured for c in some) / len(some):.0%})",
            f"{np.nanmedian([c.before for c in some]):.3g}",
            f"{np.nanmedian([c.after for c in some]):.3g}",
        )
    silent = sum(c.remedy is None for c in cures)
    table.caption = (
        f"{len(cures)} runs; of {silent} nothing is diagnosed, {len(cures) - silent - len(tried)} need a choice"
    )
    return table
