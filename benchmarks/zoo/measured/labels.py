"""Labels of single runs: a fault of a form may be there with one draw of data and weights, and not with another."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.zoo.measured.definitions import BORDER, DEFINITIONS, degree
from benchmarks.zoo.measured.plain import Plain
from benchmarks.zoo.scenario import Scenario
from benchmarks.zoo.score import Outcome
from benchmarks.zoo.store import path_of

BY_DRAW = ("TW101", "TW102", "TW103", "TW104", "TW201", "TW202", "TW203", "TW204", "TW205", "TW206", "TW207", "TW208",
           "TW403", "TW601", "TW602", "TW603")  # fmt: skip
RISEN = {"TW201", "TW202", "TW203"}  # one fault, by what the score does meanwhile
HIDDEN = {"TW103"}  # says that a class is missed and not noticed, and not why; why is one of these:
MISSED = {"TW101", "TW102", "TW104"}
Degrees = Mapping[str, float | None]
Job = tuple[Path, Scenario, int, tuple[str, ...]]


def to_measure(folder: Path, outcomes: Iterable[Outcome], codes: Collection[str] = BY_DRAW) -> list[Job]:
    """What is not measured yet of some runs: of `codes`, those of their truth, and what else was said of them."""
    jobs = []
    for o in outcomes:
        said = {code for cause in o.said.causes for code in cause}
        asked = (_planted(o.scenario) | _why(o.scenario)) & set(codes)
        asked |= (said - set(o.scenario.truth)) & set(DEFINITIONS)
        if missing := asked - set(degrees(folder, o.scenario, o.seed)):
            jobs.append((folder, o.scenario, o.seed, tuple(sorted(missing))))
    return jobs


def measure(job: Job) -> tuple[Scenario, int, str]:
    """Measure some codes of a run and store them, for a pool: scenario, seed, and what went wrong, if anything did."""
    folder, scenario, seed, codes = job
    torch.set_num_threads(1)
    run, wrong = Plain(scenario, seed), ""
    found = dict(degrees(folder, scenario, seed))
    for code in codes:
        try:
            found[code] = degree(run, code)
        except Exception as error:
            found[code], wrong = None, f"{code}: {error!r}"
    path = _path(folder, scenario, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"fingerprint": scenario.fingerprint, "degrees": found}), encoding="utf-8")
    return scenario, seed, wrong


def degrees(folder: Path, scenario: Scenario, seed: int) -> Degrees:
    """Code -> how far a run has it; None where it could not be told. Empty where nothing was measured."""
    path = _path(folder, scenario, seed)
    if not path.is_file():
        return {}
    told = json.loads(path.read_text(encoding="utf-8"))
    return dict(told["degrees"]) if told["fingerprint"] == scenario.fingerprint else {}


def of_run(outcome: Outcome, found: Degrees) -> Outcome:
    """The outcome, by what was measured of this very run.

    A code measured below `BORDER` is not true of it, one measured above is. A planted fault whose degree is below 1 is
    not there, and a run in which nothing is that was planted counts as a sound one.
    """
    known = {code: value for code, value in found.items() if value is not None}
    s = outcome.scenario
    least = 1.0 if s.every else BORDER
    there = {code: known.get(code, float(code in s.truth)) for code in sorted(_planted(s) | _why(s))}
    planted = any(there[code] >= 1 for code in _planted(s))
    truth = tuple(code for code, value in there.items() if value >= least) if planted else ()
    also = {*s.truth, *s.also, *known} - set(truth)
    also = {code for code in also if known.get(code, 1.0) >= BORDER}
    return replace(outcome, scenario=replace(s, planted=planted, truth=truth, also=tuple(sorted(also))))


def _planted(scenario: Scenario) -> set[str]:
    """Codes of the truth, and those of the same fault."""
    truth = set(scenario.truth)
    return truth | RISEN if truth & RISEN else truth


def _why(scenario: Scenario) -> set[str]:
    """Codes that say why there is what the truth says."""
    return MISSED if HIDDEN & set(scenario.truth) else set()


def _path(folder: Path, scenario: Scenario, seed: int) -> Path:
    return path_of(folder, scenario, seed).with_suffix(".json")
