"""What `trainwatch.preflight` finds in the zoo before training: ``python -m benchmarks.preflight``.

Each scenario is built as its training would begin, and nothing is trained. A fault counts as there before training if
its truth is one of `BEFORE`; it is found if preflight names any code of the truth. Of the held-out half, totals only.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter, defaultdict
from dataclasses import replace
from multiprocessing import get_context
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

import trainwatch
from benchmarks.zoo.__main__ import Families, Workers
from benchmarks.zoo.scenario import HALVES, Scenario, scenarios
from benchmarks.zoo.training import before_training, criterion, loaders, optimizer

BEFORE = ("TW107", "TW108", "TW309", "TW703", "TW705", "TW706", "TW802")
Told = tuple[Scenario, int, tuple[str, ...], float, str]  # scenario, seed, codes found, seconds, what failed


def there_before(scenario: Scenario) -> bool:
    """The fault is one of the wiring, and not made by the loop on its way."""
    return bool(set(scenario.truth) & set(BEFORE)) and not scenario.loop.freeze_after


def look(job: tuple[Scenario, int]) -> Told:
    """Build a scenario and try it."""
    scenario, seed = job
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some planted faults make torch warn
            model, sets = before_training(replace(scenario, model=replace(scenario.model, compiled=False)), seed)
            train, val = loaders(scenario, sets)
            optim, _ = optimizer(scenario, model, scenario.loop.epochs * len(train))
            began = time.perf_counter()
            report = trainwatch.preflight(
                model,
                criterion(scenario.loss, sets),
                train,
                optim,
                validation=val if scenario.loop.validate else False,
                seconds=600,  # all is measured, however busy the machine
                settings=trainwatch.Settings(quiet=True),
            )
        codes = tuple(d.code for cause in report.findings() for d in cause.walk())
        return scenario, seed, codes, time.perf_counter() - began, ""
    except Exception as error:
        return scenario, seed, (), time.perf_counter() - began, repr(error)


def main(
    families: Families = None,
    half: Annotated[str | None, typer.Option(help="tuning or held_out; both by default.")] = None,
    seeds: Annotated[int, typer.Option(help="How many.")] = 1,
    workers: Workers = 1,
) -> None:
    """Look at every scenario of the zoo before its training, and print what was found."""
    console = Console(width=140)
    if families and half != "tuning":
        raise typer.BadParameter("single families can be looked at in the tuning half only: add --half tuning")
    for part in [h for h in HALVES if half in (None, h)]:
        known = [s for s in scenarios(part, *(families or ())) if s.model.kind != "gan"]
        jobs = [(s, seed) for s in known if not s.planted or there_before(s) for seed in range(seeds)]
        with get_context("spawn").Pool(workers) as pool:
            told = list(pool.imap_unordered(look, jobs))
        if part == "tuning":
            console.print(_by_truth(told))
            for scenario, seed, codes, _, error in sorted(told, key=lambda t: (t[0].family, t[0].form, t[1])):
                if error or (scenario.planted and not _found(scenario, codes)) or (not scenario.planted and codes):
                    said = error or ", ".join(codes) or "nothing"
                    truth = "/".join(scenario.truth) or "sound"
                    console.print(f"{scenario.family}/{scenario.form}-{seed} ({truth}): {said}", highlight=False)
        console.print(_totals(told, part), highlight=False)


def _found(scenario: Scenario, codes: tuple[str, ...]) -> bool:
    return bool(set(codes) & set(scenario.truth))


def _by_truth(told: list[Told]) -> Table:
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for scenario, _, codes, _, _ in told:
        truth = "/".join(sorted(set(scenario.truth) & set(BEFORE))) if scenario.planted else "sound"
        seen[truth].update(looks=1, found=_found(scenario, codes), alarmed=bool(codes))
    table = Table("truth", "looks", "cause named", "any finding", title="before training, tuning half")
    for truth, counts in sorted(seen.items()):
        table.add_row(truth, *(str(counts[what]) for what in ("looks", "found", "alarmed")))
    return table


def _totals(told: list[Told], part: str) -> str:
    faulty = [_found(s, codes) for s, _, codes, _, _ in told if s.planted]
    sound = [bool(codes) for s, _, codes, _, _ in told if not s.planted]
    seconds = sorted(took for _, _, _, took, _ in told)
    return (
        f"{part.replace('_', '-')} half: cause named in {sum(faulty)} of {len(faulty)} faulty, "
        f"a finding in {sum(sound)} of {len(sound)} sound; median {seconds[len(seconds) // 2]:.2f} s, "
        f"longest {seconds[-1]:.2f} s, {sum(bool(t[4]) for t in told)} failed"
    )


if __name__ == "__main__":
    typer.run(main)
