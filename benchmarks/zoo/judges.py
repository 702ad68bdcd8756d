"""Who judges a record: trainwatch as users get it, and the reference rules of rival tools."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks.rivals import RIVALS
from benchmarks.rivals.rival import Rival, Thresholds
from benchmarks.rivals.tuning import tuned
from benchmarks.zoo.scenario import SEEDS, Scenario, scenarios
from benchmarks.zoo.score import Outcome, Said, Told
from benchmarks.zoo.store import path_of, restore
from trainwatch import Settings
from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.engine import judge
from trainwatch.record import RunRecord
from trainwatch.rules import all_rules


def trainwatch(record: RunRecord) -> Said:
    """What is said by `Settings()`: findings are of warning or above."""
    report = judge(record, Settings())
    reported = {t["code"]: t["step"] for t in reversed(record.transitions) if t["state"] == "reported"}
    return replace(
        said(report.diagnoses),
        reported=tuple(sorted(reported.items())),
        steps=record.steps,
        told=tuple(told for cause in report.diagnoses for told in _told(cause, ())),
    )


def said(diagnoses: Iterable[Diagnosis]) -> Said:
    """What diagnoses of warning or above come to, causes and consequences."""
    worst = [d for d in diagnoses if d.severity >= Severity.WARNING]
    below = [d for cause in worst for d in cause.walk() if d is not cause and d.severity >= Severity.WARNING]
    return Said(causes=tuple(frozenset({d.code}) for d in worst), nested=frozenset(d.code for d in below))


def _told(d: Diagnosis, above: tuple[str, ...]) -> Iterator[Told]:
    yield Told(d.code, d.severity < Severity.WARNING, float(d.margin), d.confidence, above)
    for consequence in d.consequences:
        yield from _told(consequence, (*above, d.code))


def _rival(rival: Rival, thresholds: Thresholds) -> Callable[[RunRecord], Said]:
    def alarms(record: RunRecord) -> Said:
        return Said(tuple(alarm.codes for alarm in rival.judge(record, thresholds)))

    return alarms


JUDGES: dict[str, Callable[[RunRecord], Said]] = {"trainwatch": trainwatch}
for _name, _set in RIVALS.items():
    JUDGES[_name] = _rival(_set, _set.published)
    if (_tuned := tuned(_name)) is not None:
        JUDGES[f"{_name}, tuned"] = _rival(_set, _tuned)


def counted(half: str | None = None, *families: str) -> list[Scenario]:
    """Scenarios but those whose truth awaits its rule."""
    rules = set(all_rules())
    return [s for s in scenarios(half, *families) if not set(s.truth) - rules]


def judge_all(folder: Path, chosen: list[Scenario], workers: int, rivals: bool = True) -> dict[str, list[Outcome]]:
    """Every judge's outcomes on all stored runs of some scenarios."""
    return judge_runs(folder, [(s, seed) for s in chosen for seed in SEEDS], workers, rivals)


def judge_runs(
    folder: Path, chosen: list[tuple[Scenario, int]], workers: int, rivals: bool = True
) -> dict[str, list[Outcome]]:
    """Every judge's outcomes on those runs that are stored."""
    runs = [(s, seed) for s, seed in chosen if path_of(folder, s, seed).is_file()]
    paths = [path_of(folder, s, seed) for s, seed in runs]
    with ProcessPoolExecutor(workers) as pool:
        heard = list(pool.map(_judge, paths, [rivals] * len(paths), chunksize=8))
    return {name: [Outcome(s, seed, all_said[name]) for (s, seed), all_said in zip(runs, heard, strict=True)]
            for name in _active(rivals)}  # fmt: skip


def _judge(path: Path, rivals: bool) -> dict[str, Said]:
    record, _ = restore(path)
    return {name: JUDGES[name](record) for name in _active(rivals)}


def _active(rivals: bool) -> list[str]:
    return list(JUDGES) if rivals else ["trainwatch"]
