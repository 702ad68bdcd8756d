"""What the installed packages said of the zoo's trainings: trained once, kept as lines of JSON."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.rivals.installed import HOOKED, READERS, adapter
from benchmarks.rivals.installed.adapter import Said, quiet
from benchmarks.rivals.installed.logs import log_of
from benchmarks.zoo.scenario import Scenario
from benchmarks.zoo.store import path_of, restore

SAID = Path(__file__).parents[1] / "said"
Key = tuple[str, str, str, int]


def key_of(scenario: Scenario, seed: int) -> Key:
    """Half, family, form and seed of a run."""
    return scenario.half, scenario.family, scenario.form, seed


def shuffled(runs: Iterable[tuple[Scenario, int]]) -> list[tuple[Scenario, int]]:
    """The same runs always in the same order that has nothing to do with what they are.

    So that those trained when time is up are a fair sample.
    """
    return sorted(runs, key=lambda r: hashlib.sha256("/".join(map(str, key_of(*r))).encode()).hexdigest())


def train(scenario: Scenario, seed: int, names: tuple[str, ...] = HOOKED) -> dict[str, Any]:
    """Train a scenario with the packages attached; the line that is kept of it."""
    from benchmarks.rivals.installed.attached import Attached
    from benchmarks.zoo import training

    def watch(*args: Any, **options: Any) -> Attached:
        return Attached(names, *args, **options)

    def callback() -> Any:
        from benchmarks.rivals.installed.lightning_callback import AttachedCallback

        return AttachedCallback(names)

    began = time.perf_counter()
    watched = training.train(scenario, seed, watch, callback)
    attached: Attached = getattr(watched, "attached", watched)
    return _line(scenario, seed, time.perf_counter() - began, attached.said, attached.errors)


def read(scenario: Scenario, seed: int, records: Path, names: tuple[str, ...] = READERS) -> dict[str, Any]:
    """Let readers of logs judge what a stored record holds; the line that is kept of it."""
    began = time.perf_counter()
    log = log_of(restore(path_of(records, scenario, seed))[0])
    said, errors = {}, {}
    for name in names:
        made = adapter(name)()
        try:
            with quiet():
                said[name] = {setting: made.judge(log, **moved) for setting, moved in made.settings.items()}
        except Exception as error:
            said[name], errors[name] = {setting: [] for setting in made.settings}, repr(error)[:200]
    return _line(scenario, seed, time.perf_counter() - began, said, errors)


def _line(scenario: Scenario, seed: int, seconds: float, said: Any, errors: dict[str, str]) -> dict[str, Any]:
    half, family, form, _ = key_of(scenario, seed)
    known = {"half": half, "family": family, "form": form, "seed": seed, "fingerprint": scenario.fingerprint}
    return {**known, "seconds": round(seconds, 2), "errors": errors, "said": said}


def attempt(job: tuple[Scenario, int, Path | None]) -> tuple[Scenario, int, dict[str, Any] | None, str]:
    """`train`, or `read` where there is a folder of records, for a pool: also what went wrong, if anything did."""
    scenario, seed, records = job
    try:
        return scenario, seed, read(scenario, seed, records) if records else train(scenario, seed), ""
    except Exception as error:
        return scenario, seed, None, f"FAILED: {error!r}"


def append(line: dict[str, Any], folder: Path = SAID) -> None:
    """Keep a line."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{line['half']}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def lines(folder: Path = SAID) -> Iterator[dict[str, Any]]:
    """All that is kept."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def said_of(scenarios: Iterable[Scenario], folder: Path = SAID) -> dict[Key, dict[str, dict[str, Said]]]:
    """Run -> package -> setting -> alarms, of runs whose scenario is still as it was when they were trained."""
    known = {(s.half, s.family, s.form): s for s in scenarios}
    found: dict[Key, dict[str, dict[str, Said]]] = {}
    for line in lines(folder):
        scenario = known.get((line["half"], line["family"], line["form"]))
        if scenario is not None and scenario.fingerprint == line["fingerprint"]:
            of_run = found.setdefault(key_of(scenario, line["seed"]), {})
            of_run.update(line["said"])
    return found
