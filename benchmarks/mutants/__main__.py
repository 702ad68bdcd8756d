"""Mutation tests of the rules: ``python -m benchmarks.mutants [CODE ...]``, from the root of the repository.

Each condition of each rule, and of the modules that rules share, is changed by itself (`making.py`). A mutant is noticed
by the zoo where its tables would show a mistake that was not there before, or by a test of the rule. Prints how many
are noticed, and every one that is not.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import trainwatch.rules
from benchmarks.mutants.by_tests import ROOT, Tests
from benchmarks.mutants.by_zoo import Zoo
from benchmarks.mutants.making import Mutant, mutants_of
from benchmarks.mutants.planting import plant
from benchmarks.zoo.__main__ import FIXTURES
from benchmarks.zoo.store import RECORDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RULES = Path(trainwatch.rules.__file__).parent
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
TIMES = ROOT / ".pytest_cache" / "mutants.json"
MACHINERY = {"__init__", "base", "confidence", "page"}  # they hold no rule's condition, and have tests of their own
console = Console(width=200, highlight=False, soft_wrap=True)


def main(
    codes: Annotated[list[str] | None, typer.Argument(help="Rules; all by default.")] = None,
    records: Annotated[Path | None, typer.Option(help="Records of the zoo; those of its tests by default.")] = None,
    zoo: Annotated[bool, typer.Option(help="Ask the zoo before the tests.")] = True,
) -> None:
    """Make the mutants, and count who notices them."""
    modules = {p: _users(p.stem) for p in sorted(RULES.glob("*.py")) if p.stem not in MACHINERY and not p.stem.endswith("_remedies")}
    if codes:
        modules = {p: used for p, used in modules.items() if any(_code(rule) in codes for rule in used)}
    folder = records or (RECORDS if RECORDS.is_dir() else FIXTURES)
    runs = Zoo(folder) if zoo else None
    console.print(f"{len(runs) if runs else 0} runs of the zoo")
    tests, rows, reviewed = Tests(TIMES), [], _reviewed()
    for path, used in modules.items():
        files = [ROOT / "tests" / "rules" / f"test_{name}.py" for name in dict.fromkeys((path.stem, *used))]
        rows.append((path.stem, *_judge(path, used, files, runs, tests, reviewed)))
    _print(rows)
    if reviewed and not codes:
        raise SystemExit(f"{EQUIVALENT.name} names mutants that are not there: {sorted(reviewed)}")


def _judge(
    path: Path, used: Sequence[str], files: Sequence[Path], zoo: Zoo | None, tests: Tests, reviewed: set[Any]
) -> tuple[int, int, int]:
    """Mutants of a module; how many the zoo notices, and how many of the others the tests do."""
    mutants = [m for m in mutants_of(path) if (m.path.name, m.function, m.change) not in reviewed]
    reviewed -= {(m.path.name, m.function, m.change) for m in mutants_of(path)}
    for file in files if mutants else ():
        if file.is_file():
            tests.learn(file)
    sound = ast.parse(path.read_text(encoding="utf-8"))
    by_zoo = by_tests = 0
    for mutant in mutants:
        plant(path, mutant.tree)
        try:
            if zoo and zoo.notices([_code(rule) for rule in used]):
                by_zoo += 1
            elif tests.notice(files):
                by_tests += 1
            else:
                console.print(f"not noticed: {mutant}", markup=False)
        finally:
            plant(path, sound)
    noticed = by_zoo + by_tests
    console.print(f"{path.stem}: {noticed} of {len(mutants)}, {by_zoo} of them by the zoo")
    return len(mutants), by_zoo, by_tests


def _users(module: str) -> list[str]:
    """Modules of rules that use a module: itself, or those that import it, straight or by others."""
    if module.startswith("tw"):
        return [module]
    text = rf"from trainwatch\.rules\.{module} import|from trainwatch\.rules import .*\b{module}\b"
    importers = [p.stem for p in sorted(RULES.glob("*.py")) if re.search(text, p.read_text(encoding="utf-8"))]
    return sorted({user for name in importers for user in _users(name)})


def _code(module: str) -> str:
    return module[:5].upper()


def _reviewed() -> set[Any]:
    """Mutants that change no verdict, each with its reason in the file."""
    found = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.is_file() else {}
    return {(m["file"], m["function"], m["change"]) for m in found.get("mutant", ())}


def _print(rows: list[tuple[str, int, int, int]]) -> None:
    table = Table("module", "mutants", "by the zoo", "by tests", "not noticed", "score", title="mutants of the rules")
    rows = [row for row in rows if row[1]]
    total = ("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])) if rows else ("all", 0, 0, 0)
    for name, made, by_zoo, by_tests in [*rows, total]:
        noticed = by_zoo + by_tests
        score = f"{noticed / made:.3f}" if made else "-"
        table.add_row(name, str(made), str(by_zoo), str(by_tests), str(made - noticed), score)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
