"""Drawn runs: trained under a watch, measured plainly, and told by what was planted into them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
from rich.table import Table

from benchmarks.zoo.drawn.faults import FAULTS
from benchmarks.zoo.drawn.recipes import HALF, draw, settled
from benchmarks.zoo.measured.labels import Degrees, degrees, of_run
from benchmarks.zoo.scenario import Scenario, of_words, words
from benchmarks.zoo.score import Outcome
from benchmarks.zoo.store import about, path_of, save
from benchmarks.zoo.training import run

SEED = 0  # of the data split, the weights and the order of samples
EACH = 3  # faults that are planted into a recipe
CLEAR = 2.0  # of its degree: a fault that nobody disputes


def train(job: tuple[Path, int, int]) -> tuple[str, str]:
    """Draw, settle and train a recipe and its faults, unless they are stored, for a pool: its name and what failed."""
    folder, seed, index = job
    torch.set_num_threads(1)
    drawn = draw(seed, index)
    try:
        base = _stored(folder, drawn) or settled(drawn)
        rng = Random(seed * 10_000 + index)
        fitting = [name for name, fault in FAULTS.items() if fault.fits(base)]
        for name in ("base", *rng.sample(fitting, min(EACH, len(fitting)))):
            scenario = base if name == "base" else FAULTS[name].plant(base, name)
            path = path_of(folder, scenario, SEED)
            if not path.is_file():
                save(path, run(scenario, SEED), {"recipe": words(scenario), "fingerprint": scenario.fingerprint})
    except Exception as error:
        return drawn.family, repr(error)
    return drawn.family, ""


def stored(folder: Path, seed: int) -> list[Scenario]:
    """The scenarios of all drawn runs of a seed that are stored."""
    return list(_read(sorted((folder / HALF).glob(f"{seed}-*/*-{SEED}.npz"))))


def measured(folder: Path, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Outcomes by what was measured of each run; what could not be measured counts neither way."""
    return [_measured(o, degrees(folder, o.scenario, o.seed)) for o in outcomes]


@dataclass(frozen=True)
class Row:
    """Runs into which one fault was planted, and in which it is there.

    Attributes:
        name: Of the fault.
        planted: Runs that it was planted into.
        there: Of those, in which a code of it has a degree of 1.
        found, first: Of those in which it is there.
        clear, clearly_found: In which it has a degree of `CLEAR`.
        untrue: Runs of those planted of which something untrue is said.
    """

    name: str
    planted: int
    there: int
    found: int
    first: int
    clear: int
    clearly_found: int
    untrue: int


def rows(folder: Path, outcomes: Sequence[Outcome]) -> list[Row]:
    """One row a fault, and one of all."""
    by_fault = {name: [o for o in outcomes if o.scenario.form == name] for name in FAULTS}
    everything = [o for some in by_fault.values() for o in some]
    return [_row(folder, name, some) for name, some in (*by_fault.items(), ("all", everything)) if some]


def table(rows: Sequence[Row], sound: Sequence[Outcome]) -> Table:
    """What was planted and what was found of it."""
    alarmed = sum(bool(o.beside) for o in sound)
    told = Table(title="runs drawn at random", caption=f"{len(sound)} sound runs, {alarmed} alarmed")
    for column in ("planted", "runs", "a fault by measurement", "found", "first", "clear", "found", "something untrue"):
        told.add_column(column)
    for r in rows:
        cells = (r.planted, r.there, r.found, r.first, r.clear, r.clearly_found, r.untrue)
        told.add_row(r.name.replace("_", " "), *map(str, cells))
    return told


def _measured(outcome: Outcome, found: Degrees) -> Outcome:
    unknown = tuple(code for code, value in found.items() if value is None and code not in outcome.scenario.truth)
    return of_run(replace(outcome, scenario=replace(outcome.scenario, also=unknown)), found)


def _row(folder: Path, name: str, some: Sequence[Outcome]) -> Row:
    there = [o for o in some if o.scenario.planted]
    clear = [o for o in there if _degree(folder, o) >= CLEAR]
    return Row(name, len(some), len(there), sum(o.found for o in there), sum(o.first for o in there), len(clear),
               sum(o.found for o in clear), sum(bool(o.beside) for o in some))  # fmt: skip


def _degree(folder: Path, outcome: Outcome) -> float:
    found = degrees(folder, outcome.scenario, outcome.seed)
    return max((value for code in outcome.scenario.truth if (value := found.get(code)) is not None), default=0.0)


def _stored(folder: Path, scenario: Scenario) -> Scenario | None:
    path = path_of(folder, scenario, SEED)
    return next(_read([path])) if path.is_file() else None


def _read(paths: Sequence[Path]) -> Iterator[Scenario]:
    for path in paths:
        form = path.stem.rpartition("-")[0]
        codes = FAULTS[form].codes if form in FAULTS else ()
        yield of_words(HALF, path.parent.name, form, codes, about(path)["recipe"])
