"""What `docs/accuracy.md` says: how often trainwatch is right, by rule and in total, and how sure it is of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scipy.stats import beta

from benchmarks.zoo.calibration import KINDS, SOUND, Case, Fitted, cases, fitted
from benchmarks.zoo.measured.definitions import DEFINITIONS
from benchmarks.zoo.measured.labels import BY_DRAW
from benchmarks.zoo.reasons import Mistake
from benchmarks.zoo.reliability import Reliability, reliability
from benchmarks.zoo.scenario import HALVES
from benchmarks.zoo.score import REPLICATES, Outcome, Share, Totals, confusion, share, totals
from trainwatch.rules import all_rules
from trainwatch.rules.calibrated import VERSION

DOCUMENT = Path(__file__).parents[2] / "docs" / "accuracy.md"
TEMPLATE = "accuracy.md.j2"


@dataclass(frozen=True)
class Half:
    """Totals of some runs.

    Attributes:
        totals: As `score.totals`.
        bound: Exact 95 % upper bound of the share of families with an alarm in a sound run.
        recall: Mean over the codes of the truth of the share of their runs whose cause is found.
        named: The same of the share in which that very code is named.
    """

    totals: Totals
    bound: float
    recall: Share
    named: Share


@dataclass(frozen=True)
class RuleRow:
    """One rule on the tuning half, and its total on the held-out half.

    Attributes:
        code, name: The rule.
        runs, families: In whose truth its code is.
        found: Share of those runs whose cause is found.
        named: Runs of those in which this very code is named.
        first: Runs of those in which the cause is named before all else.
        rank: Median place of the cause among the findings, where it is found.
        step, part: Median step, and share of the run, at which it was reported live; None where it never was.
        untrue, others: Runs in which it is said and not true, and runs of which it is not true.
        bound: Exact 95 % upper bound of the share of families in which it is said untruly.
        held_out: Found of runs, as text.
    """

    code: str
    name: str
    runs: int
    families: int
    found: Share
    named: int
    first: int
    rank: float | None
    step: float | None
    part: float | None
    untrue: int
    others: int
    bound: float
    held_out: str


def document(
    outcomes: Sequence[Outcome],
    by_run: Sequence[Outcome],
    thorough: Sequence[Outcome],
    mistakes: Sequence[Mistake],
) -> str:
    """The text of the document.

    Args:
        outcomes: Of trainwatch on both halves, as users get it.
        by_run: The same, each by what was measured of that very run.
        thorough: On those runs of the tuning half that were trained with all probes too.
        mistakes: Of the tuning half.
    """
    of = {half: [o for o in outcomes if o.scenario.half == half] for half in HALVES}
    known = {half: cases(some) for half, some in of.items()}
    alike = {(o.scenario.family, o.scenario.form, o.seed): o for o in of["tuning"]}
    both = [(alike[key], o) for o in thorough if (key := (o.scenario.family, o.scenario.form, o.seed)) in alike]
    curves = {kind: fitted(_kind(known["tuning"], kind)) for kind in KINDS}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    environment.globals["zip"] = zip
    return environment.get_template(TEMPLATE).render(
        halves={half: _half(some) for half, some in of.items()},
        by_run={half: _half([o for o in by_run if o.scenario.half == half]) for half in HALVES},
        absent={half: _absent(outcomes, by_run, half) for half in HALVES},
        definitions={code: " ".join(str(d.__doc__).split()) for code, d in sorted(DEFINITIONS.items())},
        by_draw=BY_DRAW,
        rules=_rules(of["tuning"], of["held_out"]),
        counts={half: by_count(some) for half, some in of.items()},
        confusion=[_first(truth, row) for truth, row in confusion(of["tuning"]).items()],
        default=_half([a for a, _ in both]),
        thorough=_half([b for _, b in both]),
        both=_both(both),
        curves=curves,
        reliable={
            kind: _reliable(*(_kind(known[half], kind) for half in ("held_out", "tuning")), curves[kind])
            for kind in KINDS
        },
        sound=SOUND,
        version=VERSION,
        mistakes=mistakes,
    )


def upper_bound(outcomes: Sequence[Outcome], holds: Callable[[Outcome], bool]) -> float:
    """One-sided 95 % Clopper-Pearson bound of the share of families with a run of which something holds."""
    families = {o.scenario.family for o in outcomes}
    hit = {o.scenario.family for o in outcomes if holds(o)}
    return float(beta.ppf(0.95, len(hit) + 1, len(families) - len(hit))) if len(hit) < len(families) else 1.0


def macro(outcomes: Sequence[Outcome], holds: Callable[[Outcome, str], bool]) -> Share:
    """Mean over the codes of the truth of the share of runs of which something holds; families are resampled."""
    faulty = [o for o in outcomes if o.scenario.planted]
    families = sorted({o.scenario.family for o in faulty})
    codes = sorted({code for o in faulty for code in o.scenario.truth})
    if not faulty:
        return Share(float("nan"), float("nan"), float("nan"), 0, 0)
    hits, runs = np.zeros((2, len(families), len(codes)))
    for o in faulty:
        for code in o.scenario.truth:
            at = families.index(o.scenario.family), codes.index(code)
            runs[at] += 1
            hits[at] += holds(o, code)
    draws = np.random.default_rng(0).multinomial(len(families), np.full(len(families), 1 / len(families)), REPLICATES)
    with np.errstate(invalid="ignore"):  # of codes of which a draw has no family
        low, high = np.quantile(np.nanmean((draws @ hits) / (draws @ runs), axis=1), [0.025, 0.975])
    return Share(float((hits.sum(0) / runs.sum(0)).mean()), float(low), float(high), len(faulty), len(families))


def by_count(outcomes: Sequence[Outcome]) -> list[tuple[str, int, int, int, int, int]]:
    """By how many causes are told: sound runs, faulty runs, of these found, first, and with something untrue."""
    rows = []
    for count, name in enumerate(("none", "one", "two", "three and more")):
        some = [o for o in outcomes if min(len(o.said.causes), 3) == count]
        faulty = [o for o in some if o.scenario.planted]
        rows.append((name, len(some) - len(faulty), len(faulty), sum(o.found for o in faulty),
                     sum(o.first for o in faulty), sum(bool(o.beside) for o in faulty)))  # fmt: skip
    return rows


def _half(outcomes: Sequence[Outcome]) -> Half:
    sound = [o for o in outcomes if not o.scenario.planted]
    return Half(
        totals(outcomes),
        upper_bound(sound, lambda o: not o.silent) if sound else float("nan"),
        macro(outcomes, lambda o, code: o.found),
        macro(outcomes, lambda o, code: code in o.said.codes),
    )


def _absent(outcomes: Sequence[Outcome], by_run: Sequence[Outcome], half: str) -> int:
    """Runs of a half in which nothing is there of what was planted."""
    pairs = zip(outcomes, by_run, strict=True)
    return sum(a.scenario.planted and not b.scenario.planted for a, b in pairs if a.scenario.half == half)


def _rules(tuning: Sequence[Outcome], held_out: Sequence[Outcome]) -> list[RuleRow]:
    said = {code for o in tuning for code in (*o.scenario.truth, *o.said.codes)}
    codes = sorted(said | {code for o in held_out for code in o.scenario.truth})
    return [_rule(code, tuning, held_out) for code in codes]


def _rule(code: str, tuning: Sequence[Outcome], held_out: Sequence[Outcome]) -> RuleRow:
    of = [o for o in tuning if code in o.scenario.truth]
    others = [o for o in tuning if code not in o.true]
    ranks = [o.rank for o in of if o.rank]
    live = [(step, step / max(o.said.steps, 1)) for o in of for told, step in o.said.reported if told == code]
    found = share(of, lambda o: o.found)
    unseen = [o.found for o in held_out if code in o.scenario.truth]
    return RuleRow(
        code,
        all_rules()[code].name,
        len(of),
        found.families,
        found,
        sum(code in o.said.codes for o in of),
        sum(o.first for o in of),
        float(np.median(ranks)) if ranks else None,
        float(np.median([step for step, _ in live])) if live else None,
        float(np.median([part for _, part in live])) if live else None,
        sum(code in o.beside for o in others),
        len(others),
        upper_bound(others, lambda o: code in o.beside),
        f"{sum(unseen)} of {len(unseen)}" if unseen else "",
    )


def _first(truth: str, row: dict[str, int]) -> tuple[str, int, str]:
    said = sorted(row.items(), key=lambda item: (-item[1], item[0]))
    return truth, sum(row.values()), ", ".join(f"{code} {runs}" for code, runs in said)


def _both(pairs: Sequence[tuple[Outcome, Outcome]]) -> list[tuple[str, int, int, int]]:
    """Code -> runs in whose truth it is, and in how many of them it is named with the one and the other probes."""
    runs, ours, theirs = Counter[str](), Counter[str](), Counter[str]()
    for default, other in pairs:
        runs.update(default.scenario.truth)
        ours.update(code for code in default.scenario.truth if code in default.said.codes)
        theirs.update(code for code in default.scenario.truth if code in other.said.codes)
    return [(code, runs[code], ours[code], theirs[code]) for code in sorted(runs)]


def _kind(known: Sequence[Case], kind: str) -> list[Case]:
    return [c for c in known if c.remark == (kind == "remarks")]


def _reliable(held_out: Sequence[Case], tuning: Sequence[Case], curve: Fitted) -> dict[str, Reliability]:
    told = {
        "held-out half": reliability([c.confidence for c in held_out], held_out),
        "tuning half, families left out": reliability(curve.chances, tuning),
    }
    return {name: found for name, found in told.items() if found}


def _cell(value: float | None, form: str) -> str:
    """A number, or nothing where there is none."""
    return "" if value is None else format(value, form)
