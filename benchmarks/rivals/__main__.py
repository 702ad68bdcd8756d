"""Rivals side by side: ``python -m benchmarks.rivals`` with ``train``, ``read``, ``tune`` or ``table``."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.rivals import RIVALS, tuning
from benchmarks.rivals.installed import HOOKED, READERS, adapter, said
from benchmarks.rivals.table import better, heard
from benchmarks.rivals.table import table as side_by_side
from benchmarks.zoo.judges import counted, judge_runs
from benchmarks.zoo.scenario import HALVES, SEEDS, Scenario, ScenarioError
from benchmarks.zoo.score import Outcome
from benchmarks.zoo.store import RECORDS, path_of

app = typer.Typer(add_completion=False, help=__doc__)
console = Console(width=None if os.isatty(1) else 160)
Half = Annotated[str | None, typer.Option(help="tuning or held_out; both by default.")]
Seeds = Annotated[list[int] | None, typer.Option(help="Seeds; 0 by default.")]
Minutes = Annotated[float, typer.Option(help="After which nothing further is begun.")]
Folder = Annotated[Path, typer.Option(help="Where records are stored.")]
Workers = Annotated[int, typer.Option(help="Processes.")]
CORES = os.cpu_count() or 1


@app.command()
def train(
    half: Half = None,
    seeds: Seeds = None,
    workers: Workers = CORES,
    minutes: Minutes = 60.0,
) -> None:
    """Train the zoo with the installed packages attached that look into models; what is kept already is skipped."""
    _judge(half, seeds or [0], workers, minutes, None)


@app.command()
def read(
    half: Half = None,
    seeds: Seeds = None,
    workers: Workers = CORES,
    minutes: Minutes = 60.0,
    folder: Folder = RECORDS,
) -> None:
    """Let the installed packages that read logs judge what the zoo's records hold; what is kept already is skipped."""
    _judge(half, seeds or [0], workers, minutes, folder)


def _judge(half: str | None, seeds: list[int], workers: int, minutes: float, folder: Path | None) -> None:
    wanted = chosen(half)
    names = READERS if folder else HOOKED
    kept = {run for run, by_package in said.said_of(wanted).items() if set(names) <= set(by_package)}
    runs = said.shuffled((s, seed) for s in wanted for seed in seeds)
    runs = [
        (s, n) for s, n in runs if said.key_of(s, n) not in kept and (not folder or path_of(folder, s, n).is_file())
    ]
    began = time.monotonic()
    with get_context("spawn").Pool(workers, maxtasksperchild=50) as pool:
        jobs = pool.imap_unordered(said.attempt, [(*run, folder) for run in runs])
        for done, (scenario, seed, line, error) in enumerate(jobs, 1):
            if line is not None:
                said.append(line)
            seconds = line["seconds"] if line is not None else 0.0
            console.print(f"{done:4}/{len(runs)} {seconds:6.1f} s  {scenario.shown(seed)} {error}", highlight=False)
            if time.monotonic() - began > 60 * minutes:
                pool.terminate()
                break


@app.command()
def tune(
    seeds: Seeds = None,
    workers: Workers = CORES,
    folder: Folder = RECORDS,
    reference: Annotated[bool, typer.Option(help="Also the reference rules; without, theirs stay.")] = True,
) -> None:
    """Search the thresholds of all rivals on the tuning half and keep them in tuned.toml."""
    wanted = chosen("tuning")
    found = dict(tuning.kept())
    if reference:
        found |= _tune_reference([(s, seed) for s in wanted for seed in seeds or [0]], workers, folder)
    spoken = said.said_of(wanted)
    by_key = {said.key_of(s, seed): s for s in wanted for seed in SEEDS}
    for name in (*HOOKED, *READERS):
        keys = [key for key in by_key if name in spoken.get(key, {})]
        if keys:
            scenarios_of, told = [by_key[k] for k in keys], [spoken[k][name] for k in keys]
            found[name], reached = tuning.tune_installed(scenarios_of, told, adapter(name).codes)
            console.print(f"{name}: J {reached:.3f} on {len(keys)} runs; {found[name]}", highlight=False)
    about = "Found by `python -m benchmarks.rivals tune` on the tuning half; what is not told is as published."
    tuning.write(found, about)


def _tune_reference(runs: list[tuple[Scenario, int]], workers: int, folder: Path) -> dict[str, dict[str, Any]]:
    stored = [(s, path_of(folder, s, seed)) for s, seed in runs if path_of(folder, s, seed).is_file()]
    with get_context("spawn").Pool(workers) as pool:
        measured = pool.map(tuning.measured_at, [path for _, path in stored], chunksize=8)
    known = [(scenario, run) for (scenario, _), run in zip(stored, measured, strict=True)]
    found = {}
    for name, rival in RIVALS.items():
        thresholds, reached = tuning.tune(rival, known)
        found[name] = {k: v for k, v in asdict(thresholds).items() if v != getattr(rival.published, k)}
        console.print(f"{name}: J {reached:.3f} on {len(known)} runs; {found[name]}", highlight=False)
    return found


@app.command()
def table(workers: Workers = CORES, folder: Folder = RECORDS) -> None:
    """All rivals over the same runs: once those that read logs, once those that look into models."""
    wanted = chosen(None)
    by_key = {said.key_of(s, seed): (s, seed) for s in wanted for seed in SEEDS}
    spoken = said.said_of(wanted)
    keys = [key for key in spoken if path_of(folder, *by_key[key]).is_file()]
    judged = judge_runs(folder, [by_key[key] for key in keys], workers)
    for half in HALVES:
        for names in (READERS, HOOKED):
            shown = [i for i, key in enumerate(keys) if key[0] == half and set(names) <= set(spoken[key])]
            if not shown:
                continue
            rows = {name: [some[i] for i in shown] for name, some in judged.items()}
            for name in names:
                heeded = tuning.kept().get(name)
                for label, how in ((name, None), *([(f"{name}, tuned", heeded)] if heeded else [])):
                    told = [heard(name, spoken[keys[i]][name], how) for i in shown]
                    rows[label] = [Outcome(*by_key[keys[i]], t) for i, t in zip(shown, told, strict=True)]
            console.print(side_by_side(rows, f"{', '.join(names)}: {half.replace('_', '-')} half"))
            if half == "tuning":
                ours = rows.pop("trainwatch")
                for name, outcomes in rows.items():
                    runs = better(ours, outcomes)
                    console.print(f"{name} alone finds {len(runs)}: {', '.join(runs)}", highlight=False)


def chosen(half: str | None) -> list[Scenario]:
    """Forms with one model whose truth is a rule's."""
    return [s for s in counted(half) if s.model.kind != "gan"]


if __name__ == "__main__":
    try:
        app()
    except ScenarioError as error:
        raise SystemExit(f"error: {error}") from None
