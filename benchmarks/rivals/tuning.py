"""Finds the thresholds at which a rival does best on the tuning half, so that no rival is a straw man.

What is maximised is Youden's J: the share of faulty runs whose cause is named, less the share of sound runs alarmed.
Each rule's alarms are collected once under each of its settings; the search then only combines them: coordinate ascent,
a rule at a time, from the published settings and from silence, whichever is better. Ties stay with what was published.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals import RIVALS
from benchmarks.rivals.rival import Measured, Rival, Thresholds, measure
from benchmarks.zoo.scenario import Scenario
from benchmarks.zoo.store import restore
from trainwatch.record.series import Array

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TUNED = Path(__file__).parent / "tuned.toml"
OFF = "off"
Causes = Sequence[frozenset[str]]


@dataclass(frozen=True)
class Effect:
    """What a rule under one setting says of all runs.

    Attributes:
        named: It names that code of the truth, shape (runs, most codes of a truth).
        untrue: It says something that is not true of the run, shape (runs,).
    """

    named: Array
    untrue: Array

    def __or__(self, other: Effect) -> Effect:
        return Effect(self.named | other.named, self.untrue | other.untrue)


def effect(scenarios: Sequence[Scenario], said: Sequence[Causes]) -> Effect:
    """Compare what was said of each run with the truth about it."""
    most = max(len(s.truth) for s in scenarios)
    named, untrue = np.zeros((len(scenarios), most), bool), np.zeros(len(scenarios), bool)
    for i, (scenario, causes) in enumerate(zip(scenarios, said, strict=True)):
        codes = frozenset().union(*causes)
        named[i, : len(scenario.truth)] = [code in codes for code in scenario.truth]
        untrue[i] = any(not cause & {*scenario.truth, *scenario.also} for cause in causes)
    return Effect(named, untrue)


def youden(scenarios: Sequence[Scenario], all_said: Effect) -> float:
    """Share of faulty runs with their cause named less share of sound runs alarmed."""
    planted = np.array([s.planted for s in scenarios])
    every = np.array([s.every for s in scenarios])
    told = np.array([len(s.truth) for s in scenarios])
    count = all_said.named.sum(1)
    found = np.where(every, count == told, count > 0)
    return float(found[planted].mean() - all_said.untrue[~planted].mean())


def search(
    scenarios: Sequence[Scenario], effects: Mapping[str, Mapping[Hashable, Effect]]
) -> tuple[dict[str, Hashable], float]:
    """The setting of each rule that together do best.

    Args:
        scenarios: Of the runs.
        effects: Rule -> setting -> its effect; the first setting is the published one, `OFF` is among them.

    Returns:
        The setting of each rule, and Youden's J.
    """
    published = {rule: next(iter(settings)) for rule, settings in effects.items()}
    ends = [_ascend(scenarios, effects, start) for start in (published, dict.fromkeys(effects, OFF))]
    return max(ends, key=lambda end: end[1])


def _ascend(
    scenarios: Sequence[Scenario], effects: Mapping[str, Mapping[Hashable, Effect]], start: Mapping[str, Hashable]
) -> tuple[dict[str, Hashable], float]:
    chosen, best = dict(start), -np.inf
    none = effect(scenarios, [()] * len(scenarios))
    while True:
        before = best
        for rule, settings in effects.items():
            others = none
            for name, setting in chosen.items():
                others = others | effects[name][setting] if name != rule else others
            reached = {setting: youden(scenarios, others | own) for setting, own in settings.items()}
            best = max(reached.values())
            if reached[chosen[rule]] < best:
                chosen[rule] = next(setting for setting, value in reached.items() if value == best)
        if best <= before:
            return chosen, best


def measured_at(path: Path) -> Measured:
    """What a stored record holds. In a module of its own: processes of a pool do not find what is in ``__main__``."""
    return measure(restore(path)[0])


def tune(rival: Rival, runs: Sequence[tuple[Scenario, Measured]]) -> tuple[Thresholds, float]:
    """The thresholds of a set of reference rules that do best on some runs, and Youden's J there."""
    scenarios = [s for s, _ in runs]
    effects: dict[str, dict[Hashable, Effect]] = {}
    for rule in rival.rules:
        effects[rule.__name__] = {}
        for moved in _settings(rival, rule.__name__):
            thresholds = replace(rival.published, **dict(moved))
            with np.errstate(all="ignore"):
                said = [[alarm.codes for alarm in rule(measured, thresholds)] for _, measured in runs]
            effects[rule.__name__][moved] = effect(scenarios, said)
        effects[rule.__name__][OFF] = effect(scenarios, [()] * len(runs))
    chosen, reached = search(scenarios, effects)
    moved = dict(pair for setting in chosen.values() if setting != OFF for pair in setting)  # type: ignore[union-attr]
    return replace(rival.published, off=tuple(r for r, s in chosen.items() if s == OFF), **moved), reached


def _settings(rival: Rival, rule: str) -> Iterator[tuple[tuple[str, Any], ...]]:
    """All combinations of the values of a rule's thresholds that are tried, the published ones first."""
    tried = rival.tried.get(rule, {})
    values = [[getattr(rival.published, name), *others] for name, others in tried.items()]
    for combination in itertools.product(*values):
        yield tuple(zip(tried, combination, strict=True))


def tune_installed(
    scenarios: Sequence[Scenario],
    said: Sequence[Mapping[str, Sequence[tuple[str, str]]]],
    codes: Mapping[str, frozenset[str]],
) -> tuple[dict[str, Any], float]:
    """The setting of an installed package, and the alarms to listen to, that do best.

    Args:
        scenarios: Of the runs.
        said: Setting -> alarms of each run.
        codes: What an alarm may be read as.

    Returns:
        ``setting``, the alarms to heed as ``warnings`` (as published) or as ``remarks`` too, and Youden's J.
    """
    best: tuple[dict[str, Any], float] = ({}, -np.inf)
    for setting in said[0]:
        effects: dict[str, dict[Hashable, Effect]] = {}
        for name in codes:
            heard = [{severity for alarm, severity in run[setting] if alarm == name} for run in said]
            of_name = [codes[name]]
            effects[name] = {
                "warnings": effect(scenarios, [of_name if h - {"info"} else () for h in heard]),
                OFF: effect(scenarios, [()] * len(said)),
                "remarks": effect(scenarios, [of_name if h else () for h in heard]),
            }
        chosen, reached = search(scenarios, effects)
        if reached > best[1]:
            heeded = {how: [n for n, s in chosen.items() if s == how] for how in ("warnings", "remarks")}
            best = {"setting": setting, **heeded}, reached
    return best


def write(found: Mapping[str, Mapping[str, Any]], about: str, path: Path = TUNED) -> None:
    """Keep tuned values: one table of TOML for each rival."""
    text = [f"# {line}" for line in about.splitlines()]
    for name, values in found.items():
        text += ["", f"[{json.dumps(name)}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


@cache
def kept(path: Path = TUNED) -> dict[str, dict[str, Any]]:
    """All tuned values; nothing before the first tuning."""
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def tuned(name: str) -> Thresholds | None:
    """The tuned thresholds of a set of reference rules; None where it was not tuned."""
    values = kept().get(name)
    if values is None:
        return None
    changes = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return replace(RIVALS[name].published, **changes)
