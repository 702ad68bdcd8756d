"""Does the zoo notice a mutant? Only where its tables would show a mistake that was not there before."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.zoo.judges import said
from benchmarks.zoo.scenario import SEEDS, Scenario, scenarios
from benchmarks.zoo.score import Outcome
from benchmarks.zoo.store import is_stored, path_of, restore
from trainwatch.config import Settings
from trainwatch.diagnosis import Diagnosis
from trainwatch.engine import nest
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked, Rule, all_rules

Found = dict[str, list[Diagnosis]]


@dataclass(frozen=True)
class Run:
    """A stored run of the tuning half: what each rule finds, and what is wrong with that as it is."""

    scenario: Scenario
    seed: int
    record: RunRecord
    found: Found
    mistakes: frozenset[str]


class Zoo:
    """The stored runs of the tuning half, read once.

    Args:
        folder: Where records are stored.
    """

    def __init__(self, folder: Path) -> None:
        self._runs = [
            _run(folder, s, seed) for s in scenarios("tuning") for seed in SEEDS if is_stored(folder, s, seed)
        ]

    def __len__(self) -> int:
        return len(self._runs)

    def notices(self, codes: Collection[str]) -> bool:
        """Whether these rules, as they are now, make a mistake that they did not make when the zoo was read."""
        rules = {code: all_rules()[code]() for code in codes if all_rules()[code].status == "stable"}
        for run in sorted(self._runs, key=lambda r: not any(r.found.get(code) for code in rules)):
            _forget(run.record)
            found = {code: list(_judge(rule, run.record)) for code, rule in rules.items()}
            changed = any(_heard(found[code]) != _heard(run.found[code]) for code in rules)
            if changed and _mistakes(run.scenario, run.seed, {**run.found, **found}) - run.mistakes:
                return True
        return False


def _run(folder: Path, scenario: Scenario, seed: int) -> Run:
    record, _ = restore(path_of(folder, scenario, seed))
    found = {rule.code: list(_judge(rule, record)) for rule in Settings().active_rules()}
    return Run(scenario, seed, record, found, _mistakes(scenario, seed, found))


def _judge(rule: Rule, record: RunRecord) -> Iterator[Diagnosis]:
    """What a rule finds; nothing where it abstains or fails, as in the engine."""
    if not all(record.has(quantity) for quantity in rule.needs):
        return
    try:
        yield from list(rule.check(record))
    except NotChecked:
        return
    except Exception:  # a mutant may do anything
        return


def _mistakes(scenario: Scenario, seed: int, found: Found) -> frozenset[str]:
    """What the zoo counts against the findings on a run."""
    outcome = Outcome(scenario, seed, said(nest([d for some in found.values() for d in some])))
    missed = {"missed": not outcome.found, "not first": not outcome.first} if scenario.planted else {}
    return frozenset({name for name, so in missed.items() if so} | {f"untrue: {code}" for code in outcome.beside})


def _heard(diagnoses: list[Diagnosis]) -> list[object]:
    """As much of findings as causes, consequences and their order come from."""
    return [(d.severity, d.where, d.onset_step, d.margin, d.confidence) for d in diagnoses]


def _forget(record: RunRecord) -> None:
    """Let go what functions of rules have found; what symptoms have measured stays."""
    for function in [f for f in record._memo if f.__module__.startswith("trainwatch.rules")]:
        del record._memo[function]
