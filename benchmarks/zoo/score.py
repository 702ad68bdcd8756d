"""How a judge of records fares on the zoo: what it said of each run, and the totals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.zoo.scenario import Scenario

REPLICATES = 2000


@dataclass(frozen=True)
class Told:
    """One diagnosis, remarks included.

    Attributes:
        code: Its rule.
        remark: It is below a warning.
        margin: Beyond the threshold, in standard errors.
        confidence: As reported.
        above: Codes of the diagnoses whose consequence it is.
    """

    code: str
    remark: bool
    margin: float
    confidence: float
    above: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """What was said of one run.

    Attributes:
        causes: Sets of codes, the first-ranked cause first; a judge may name several codes by one alarm.
        nested: Codes that were said as consequences of those.
        reported: Step after which each code was reported while it ran.
        steps: Steps of the run.
        told: All diagnoses in the order of the report, causes before their consequences.
    """

    causes: tuple[frozenset[str], ...]
    nested: frozenset[str] = frozenset()
    reported: tuple[tuple[str, int], ...] = ()
    steps: int = 0
    told: tuple[Told, ...] = ()

    @property
    def ranking(self) -> str:
        """One code of each cause, the first-ranked first."""
        return " > ".join(min(cause, default="") for cause in self.causes)

    @property
    def codes(self) -> frozenset[str]:
        return frozenset().union(*self.causes, self.nested)


@dataclass(frozen=True)
class Outcome:
    """One run and what was said of it."""

    scenario: Scenario
    seed: int
    said: Said

    @cached_property
    def found(self) -> bool:
        """The cause was named: any code of the truth, or all of them where there are several faults."""
        named = [code in self.said.codes for code in self.scenario.truth]
        return all(named) if self.scenario.every else any(named)

    @cached_property
    def first(self) -> bool:
        """The cause was named before all else."""
        return self.found and bool(self.said.causes) and bool(self.said.causes[0] & set(self.scenario.truth))

    @cached_property
    def true(self) -> frozenset[str]:
        """Codes that are true of the run."""
        return frozenset((*self.scenario.truth, *self.scenario.also))

    @cached_property
    def led(self) -> bool:
        """The cause was named, and what was named before all else is true of the run: it, or what it comes of."""
        return self.found and bool(self.said.causes) and bool(self.said.causes[0] & self.true)

    @cached_property
    def beside(self) -> tuple[str, ...]:
        """Codes said that are not true of the run; consequences of a named cause are true."""
        return tuple(sorted(set().union(*(c for c in self.said.causes if not c & self.true))))

    @cached_property
    def rank(self) -> int | None:
        """Place of the first finding of the truth among all of the report, consequences included, from 1 on."""
        codes = [told.code for told in self.said.told if not told.remark]
        return next((i for i, code in enumerate(codes, 1) if code in self.scenario.truth), None)

    def right(self, told: Told) -> bool:
        """A diagnosis is true of the run, or the consequence of one that is."""
        return bool({told.code, *told.above} & self.true)

    @cached_property
    def wrong(self) -> tuple[str, ...]:
        """What is wrong about what was said, if anything is."""
        if not self.scenario.planted:
            return () if self.silent else (f"false alarm: {', '.join(self.beside)}",)
        named = () if self.first else ("not first",) if self.found else ("missed",)
        return named + ((f"untrue: {', '.join(self.beside)}",) if self.beside else ())

    @property
    def silent(self) -> bool:
        """Nothing was said that is not true of the run."""
        return not self.beside


@dataclass(frozen=True)
class Share:
    """A share of runs with its 95 % interval from resampled families, since runs of one family are alike."""

    value: float
    low: float
    high: float
    runs: int
    families: int

    def __str__(self) -> str:
        if not self.runs:
            return "-"
        return f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Totals:
    """The numbers that the zoo is kept for.

    Attributes:
        found: Faulty runs of which the cause is named.
        first: Faulty runs of which the cause is named first.
        led: Faulty runs of which the cause is named, and what is named first is true.
        pairs: Faulty runs of which the cause is named while the repaired form of the same seed is silent.
        alarmed: Sound runs (healthy or repaired) with any warning or error.
        beside: Faulty runs in which something untrue is said as well.
    """

    found: Share
    first: Share
    led: Share
    pairs: Share
    alarmed: Share
    beside: Share


def totals(outcomes: Sequence[Outcome]) -> Totals:
    """Sum up the outcomes of a half."""
    faulty = [o for o in outcomes if o.scenario.planted]
    sound = [o for o in outcomes if not o.scenario.planted]
    repaired = {(o.scenario.family, o.seed): o.silent for o in sound if o.scenario.form == "base"}
    return Totals(
        found=share(faulty, lambda o: o.found),
        first=share(faulty, lambda o: o.first),
        led=share(faulty, lambda o: o.led),
        pairs=share(faulty, lambda o: o.found and repaired.get((o.scenario.family, o.seed), False)),
        alarmed=share(sound, lambda o: not o.silent),
        beside=share(faulty, lambda o: bool(o.beside)),
    )


def share(outcomes: Iterable[Outcome], holds: Callable[[Outcome], bool]) -> Share:
    """The share of runs of which something holds, with an interval by a bootstrap over families."""
    families: dict[str, list[bool]] = defaultdict(list)
    for o in outcomes:
        families[o.scenario.family].append(holds(o))
    if not families:
        return Share(float("nan"), float("nan"), float("nan"), 0, 0)
    hits = np.array([sum(v) for v in families.values()])
    runs = np.array([len(v) for v in families.values()])
    draws = np.random.default_rng(0).integers(0, len(runs), (REPLICATES, len(runs)))
    resampled = hits[draws].sum(1) / runs[draws].sum(1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    if hits.sum() in (0, runs.sum()):  # no family differs from another: the rule of three over families, exact for few
        apart = 0.05 ** (1 / len(runs))
        low, high = (0.0, 1 - apart) if not hits.sum() else (apart, 1.0)
    return Share(float(hits.sum() / runs.sum()), float(low), float(high), int(runs.sum()), len(runs))


def confusion(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """Truth -> first-ranked diagnosis -> runs; ``healthy`` and ``silent`` stand for nothing."""
    table: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for o in outcomes:
        truth = "/".join(o.scenario.truth) if o.scenario.planted else "healthy"
        said = "silent"
        if o.said.causes:
            hit = o.said.causes[0] & set(o.scenario.truth)
            said = min(hit or o.said.causes[0])
        table[truth][said] += 1
    return {truth: dict(row) for truth, row in sorted(table.items())}
