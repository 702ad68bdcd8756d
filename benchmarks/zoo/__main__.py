"""The zoo's commands, ``python -m benchmarks.zoo --help``, from the root of the repository."""

from __future__ import annotations

import os
import shutil
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.zoo import tables
from benchmarks.zoo.scenario import HALVES, SEEDS, Scenario, ScenarioError, scenarios
from benchmarks.zoo.store import RECORDS, beside, is_stored, path_of
from trainwatch.rules import all_rules

app = typer.Typer(add_completion=False, help=__doc__)
console = Console(width=None if os.isatty(1) else 160)
Families = Annotated[list[str] | None, typer.Argument(help="Families; all by default.")]
Half = Annotated[str | None, typer.Option(help="tuning or held_out; both by default.")]
Workers = Annotated[int, typer.Option(help="Processes.")]
Folder = Annotated[Path, typer.Option(help="Where records are stored.")]
DRAWN = beside(RECORDS, "drawn")
CORES = os.cpu_count() or 1
FIXTURES = Path(__file__).parents[2] / "tests" / "zoo" / "fixtures"


@app.command("list")
def list_families(half: Half = "tuning") -> None:
    """Families and their forms."""
    for scenario in scenarios(half):
        truth = "/".join(scenario.truth) or ("repaired" if scenario.repaired else "healthy")
        console.print(f"{scenario.half:9} {scenario.family:32} {scenario.form:20} {truth}", highlight=False)


@app.command()
def train(
    families: Families = None,
    half: Half = None,
    workers: Workers = CORES,
    folder: Folder = RECORDS,
    again: Annotated[bool, typer.Option(help="Also runs that are stored already.")] = False,
    seeds: Annotated[int, typer.Option(help="How many of the seeds.", min=1, max=len(SEEDS))] = len(SEEDS),
    probes: Annotated[
        str, typer.Option(help="auto as users get it, or all: stored beside, in a folder whose name ends in -all.")
    ] = "auto",
) -> None:
    """Train every scenario with every seed and store the records; what is stored already is skipped."""
    from benchmarks.zoo.training import attempt

    if probes not in ("auto", "all"):
        raise typer.BadParameter(f"--probes is auto or all, got {probes!r}")
    folder = beside(folder, "all") if probes == "all" else folder
    wanted = [(s, seed) for seed in SEEDS[:seeds] for s in scenarios(half, *(families or ()))]
    wanted = [(s, seed) for s, seed in wanted if again or not is_stored(folder, s, seed)]
    began, failed = time.perf_counter(), 0
    with get_context("spawn").Pool(workers, maxtasksperchild=20) as pool:
        jobs = pool.imap_unordered(attempt, [(folder, s, seed, probes) for s, seed in wanted])
        for done, (scenario, seed, seconds, error) in enumerate(jobs, 1):
            failed += bool(error)
            name = f"{scenario.family}/{scenario.form}-{seed}" if error else scenario.shown(seed)
            console.print(f"{done:4}/{len(wanted)} {seconds:6.1f} s  {name} {error}", highlight=False)
    console.print(f"{len(wanted) - failed} runs trained in {time.perf_counter() - began:.0f} s, {failed} failed")
    raise typer.Exit(1 if failed else 0)


@app.command()
def judge(
    families: Families = None,
    half: Half = None,
    workers: Workers = CORES,
    folder: Folder = RECORDS,
    rivals: Annotated[bool, typer.Option(help="Also the reference rules of rival tools.")] = True,
) -> None:
    """Judge all stored records anew and print the tables; of the held-out half, totals only."""
    from benchmarks.zoo.judges import counted, judge_all
    from benchmarks.zoo.score import totals

    _no_case_is_held_out(families, half)
    began = time.perf_counter()
    wanted = scenarios(half, *(families or ()))
    chosen = counted(half, *(families or ()))
    outcomes = judge_all(folder, chosen, workers, rivals)
    for part in HALVES:
        of_part = {name: [o for o in some if o.scenario.half == part] for name, some in outcomes.items()}
        ours = of_part["trainwatch"]
        if not ours:
            continue
        if part == "tuning":
            for table in (tables.rule_table(ours), tables.confusion_table(ours), tables.mistakes(ours)):
                console.print(table)
        title = f"totals, {part.replace('_', '-')} half"
        console.print(tables.totals_table({name: totals(some) for name, some in of_part.items()}, title))
    runs = len(outcomes["trainwatch"])
    console.print(f"{runs} records judged in {time.perf_counter() - began:.1f} s")
    awaited = sorted({code for s in wanted for code in set(s.truth) - set(all_rules())})
    if awaited:
        console.print(f"{len(wanted) - len(chosen)} faulty forms await their rule: {', '.join(awaited)}")


@app.command()
def measure(
    half: Half = None,
    workers: Workers = CORES,
    folder: Folder = RECORDS,
) -> None:
    """Measure by plain trainings what is true of each stored run: what was planted, and what is said of it."""
    from benchmarks.zoo.judges import counted, judge_all
    from benchmarks.zoo.measured import labels

    jobs = labels.to_measure(folder, judge_all(folder, counted(half), workers, rivals=False)["trainwatch"])
    began = time.perf_counter()
    with get_context("spawn").Pool(workers, maxtasksperchild=20) as pool:
        for done, (scenario, seed, error) in enumerate(pool.imap_unordered(labels.measure, jobs), 1):
            console.print(f"{done:4}/{len(jobs)} {scenario.shown(seed)} {error}", highlight=False)
    console.print(f"{len(jobs)} runs measured in {time.perf_counter() - began:.0f} s")


@app.command()
def calibrate(
    workers: Workers = CORES,
    folder: Folder = RECORDS,
    output: Annotated[Path | None, typer.Option(help="Where to; the table of the package by default.")] = None,
) -> None:
    """Fit confidence to the tuning half anew and write the table that the package reads."""
    from benchmarks.zoo import calibration
    from benchmarks.zoo.judges import counted, judge_all

    known = calibration.cases(judge_all(folder, counted("tuning"), workers, rivals=False)["trainwatch"])
    told = {
        kind: calibration.fitted([c for c in known if c.remark == (kind == "remarks")]) for kind in calibration.KINDS
    }
    console.print(tables.fit_table(told))
    path = output or calibration.TABLE
    version = calibration.write(path, *(f.curve for f in told.values()))
    console.print(f"version {version} written to {path}", highlight=False)


@app.command()
def accuracy(
    workers: Workers = CORES,
    folder: Folder = RECORDS,
    output: Annotated[Path | None, typer.Option(help="Where to; docs/accuracy.md by default.")] = None,
) -> None:
    """Judge all stored records anew and write the document on how often trainwatch is right."""
    from benchmarks.zoo import accuracy as how
    from benchmarks.zoo.judges import counted, judge_all
    from benchmarks.zoo.measured import labels
    from benchmarks.zoo.reasons import mistakes, outdated, reasons

    known = reasons()
    outcomes = judge_all(folder, counted(), workers, rivals=False)["trainwatch"]
    others = judge_all(beside(folder, "all"), counted("tuning"), workers, rivals=False)["trainwatch"]
    wrong = mistakes([o for o in outcomes if o.scenario.half == "tuning"], known)
    path = output or how.DOCUMENT
    by_run = [labels.of_run(o, labels.degrees(folder, o.scenario, o.seed)) for o in outcomes]
    path.write_text(how.document(outcomes, by_run, others, wrong), encoding="utf-8")
    if awaited := labels.to_measure(folder, outcomes):
        console.print(f"{len(awaited)} runs are not measured yet: python -m benchmarks.zoo measure")
    for m in wrong:
        if not m.why:
            console.print(f"no reason yet: {m.form} {', '.join(map(str, m.seeds))} {m.wrong}", highlight=False)
    for pattern in outdated(wrong, known):
        console.print(f"out of date: {pattern}", highlight=False)
    console.print(f"{len(outcomes)} runs, and {len(others)} with all probes, written to {path}", highlight=False)


@app.command()
def cure(
    families: Families = None,
    half: Half = None,
    workers: Workers = CORES,
    folder: Folder = RECORDS,
    forms: Annotated[int, typer.Option(help="How many faults of each family; 0 for all.")] = 0,
) -> None:
    """Apply the first remedy of each stored faulty run (of one seed) as its report has it, train again, and judge."""
    from benchmarks.zoo import cures

    _no_case_is_held_out(families, half)
    faulty: dict[str, list[Scenario]] = {}
    repaired: dict[str, Scenario] = {}
    for s in scenarios(half, *(families or ())):
        if s.planted and path_of(folder, s, SEEDS[0]).is_file():
            faulty.setdefault(s.family, []).append(s)
        elif s.form == "base":
            repaired[s.family] = s
    jobs = [(folder, s, SEEDS[0], repaired[f]) for f, some in faulty.items() for s in some[: forms or None]]
    found: list[cures.Cure] = []
    with get_context("spawn").Pool(workers, maxtasksperchild=20) as pool:
        for scenario, one, error in pool.imap_unordered(cures.attempt, jobs):
            found += [one] if one else []
            named = scenario.shown(SEEDS[0])
            if error:
                console.print(f"{named} {error}", highlight=False)
            elif one and one.mechanical and not one.cured and scenario.half == "tuning":
                told = f"{one.remedy} for {one.code}, quality {one.before:.3g} before and {one.after:.3g} after"
                console.print(f"not cured: {named}: {told}", highlight=False)
    for part in HALVES:
        if some := [c for c in found if c.scenario.half == part]:
            title = f"first remedies at work, {part.replace('_', '-')} half"
            console.print(tables.cure_table(some, title, each=part == "tuning"))


@app.command("draw")
def draw_runs(
    count: Annotated[int, typer.Option(help="Recipes.", min=1)] = 40,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 0,
    workers: Workers = CORES,
    folder: Folder = DRAWN,
) -> None:
    """Train recipes drawn at random and faults planted into them, measure each plainly, and say what was found."""
    from benchmarks.zoo.drawn import runs as drawn
    from benchmarks.zoo.judges import judge_runs
    from benchmarks.zoo.measured import labels
    from benchmarks.zoo.measured.definitions import DEFINITIONS

    with get_context("spawn").Pool(workers, maxtasksperchild=5) as pool:
        for name, error in pool.imap_unordered(drawn.train, [(folder, seed, i) for i in range(count)]):
            console.print(f"{name} {error or 'trained'}", highlight=False)
        chosen = [(s, drawn.SEED) for s in drawn.stored(folder, seed)]
        outcomes = judge_runs(folder, chosen, workers, rivals=False)["trainwatch"]
        for scenario, _, error in pool.imap_unordered(labels.measure, labels.to_measure(folder, outcomes, DEFINITIONS)):
            console.print(f"{scenario.family}/{scenario.form} {error or 'measured'}", highlight=False)
    outcomes = drawn.measured(folder, outcomes)
    for o in outcomes:
        if o.wrong:
            named = f"{o.scenario.family}/{o.scenario.form}"
            console.print(f"{named}: {'; '.join(o.wrong)}; said {o.said.ranking}", highlight=False)
    console.print(drawn.table(drawn.rows(folder, outcomes), [o for o in outcomes if o.scenario.form == "base"]))


@app.command()
def freeze(
    runs: Annotated[
        list[str] | None, typer.Argument(help="FAMILY/FORM-SEED; those committed already by default.")
    ] = None,
    folder: Folder = RECORDS,
    fixtures: Annotated[Path, typer.Option(help="Where to.")] = FIXTURES,
) -> None:
    """Copy stored records of the tuning half to where the tests judge them."""
    wanted = [Path("tuning", f"{run}.npz") for run in runs or ()]
    for path in wanted or sorted(p.relative_to(fixtures) for p in fixtures.rglob("*.npz")):
        if not (folder / path).is_file():
            raise typer.BadParameter(
                f"no record of {path.with_suffix('').relative_to('tuning')}: train its family first"
            )
        (fixtures / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, fixtures / path)
        console.print(str(path), highlight=False)


def _no_case_is_held_out(families: list[str] | None, half: str | None) -> None:
    if families and half != "tuning":
        raise typer.BadParameter("single families can be looked at in the tuning half only: add --half tuning")


if __name__ == "__main__":
    try:
        app()
    except ScenarioError as error:
        raise SystemExit(f"error: {error}") from None
