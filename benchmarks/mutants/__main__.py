"""Mutation tests of the rules: ``python -m benchmarks.mutants [CODE ...]``, from the root of the repository.

Each condition of each rule, and of the modules that rules share, is changed by itself (`making.py`). A mutant is
noticed by a quick test of the rule, or else by mypy, or else by the zoo, where its tables would show a mistake that was
not there before. Prints how many are noticed, and every one that is not.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import trainwatch.rules
from benchmarks.mutants.by_tests import EVERY_RULE, ROOT, with_tests
from benchmarks.mutants.by_types import Types
from benchmarks.mutants.by_zoo import Zoo
from benchmarks.mutants.making import Key, mutants_of
from benchmarks.mutants.planting import plant
from benchmarks.zoo.__main__ import FIXTURES
from benchmarks.zoo.store import RECORDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RULES = Path(trainwatch.rules.__file__).parent
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
TESTS = ROOT / "tests"
COUNTS = ("made", "by_tests", "by_types", "by_zoo")
TIMES = ROOT / ".pytest_cache" / "mutants.json"
console = Console(width=200, highlight=False, soft_wrap=True)


def main(
    codes: Annotated[list[str] | None, typer.Argument(help="Rules; all by default.")] = None,
    records: Annotated[Path | None, typer.Option(help="Records of the zoo; those of its tests by default.")] = None,
    every: Annotated[int, typer.Option(help="Of the mutants of a module only every n-th.")] = 1,
    zoo: Annotated[bool, typer.Option(help="Ask the zoo about mutants that no test notices.")] = True,
) -> None:
    """Make the mutants, and count who notices them."""
    modules = {p: _users(p.stem) for p in sorted(RULES.glob("*.py")) if _judges(p.stem)}
    if codes:
        modules = {p: used for p, used in modules.items() if any(_code(rule) in codes for rule in used)}
    _load()
    runs = Zoo(records or (RECORDS if RECORDS.is_dir() else FIXTURES)) if zoo else None
    rows, reviewed = [], _reviewed()
    with Types() as types:
        for path, used in modules.items():
            rows.append(_count(path, used, every, types, runs, reviewed))
    _print([row for row in rows if row.made])
    if reviewed and not codes:
        raise SystemExit(f"{EQUIVALENT.name} names mutants that are not there: {sorted(reviewed)}")


@dataclass
class Row:
    """Mutants of a module: how many were made, and how many were noticed by whom."""

    module: str
    made: int = 0
    by_tests: int = 0
    by_types: int = 0
    by_zoo: int = 0

    def shown(self) -> tuple[str, ...]:
        noticed = self.by_tests + self.by_types + self.by_zoo
        counts = (self.made, self.by_tests, self.by_types, self.by_zoo, self.made - noticed)
        return self.module, *map(str, counts), f"{noticed / self.made:.3f}" if self.made else "-"


def _count(path: Path, used: Sequence[str], every: int, types: Types, zoo: Zoo | None, reviewed: set[Key]) -> Row:
    made = mutants_of(path)
    mutants = [m for m in made if m.key not in reviewed][::every]
    reviewed -= {m.key for m in made}
    row = Row(path.stem, len(mutants))
    sound, codes = ast.parse(path.read_text(encoding="utf-8")), [_code(rule) for rule in used]

    def work(notice: Callable[[], bool]) -> None:
        if notice():
            raise SystemExit(f"{path.stem}: a quick test fails although nothing was changed")
        for mutant in mutants:
            plant(path, mutant.tree)
            if notice():
                row.by_tests += 1
            elif types.notice(mutant):
                row.by_types += 1
            elif zoo is not None and zoo.notices(codes):
                row.by_zoo += 1
            else:
                console.print(f"not noticed: {mutant}", markup=False)
            plant(path, sound)

    if mutants:
        files = [TESTS / "rules" / f"test_{name}.py" for name in dict.fromkeys((path.stem, *used))]
        with_tests([*files, TESTS / EVERY_RULE], codes, TIMES, work)
        console.print(*row.shown())
    return row


def _load() -> None:
    """All of trainwatch, so that no forked process has to."""
    for module in pkgutil.walk_packages(trainwatch.__path__, "trainwatch."):
        if not module.name.endswith(("__main__", "huggingface", "lightning")):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)


def _judges(module: str) -> bool:
    """Whether a module holds conditions of verdicts; remedies advise, and the machinery has tests of its own."""
    return module not in ("__init__", "base", "confidence", "page") and not module.endswith("_remedies")


def _users(module: str) -> list[str]:
    """Modules of rules that use a module: itself, or those that import it, straight or by others."""
    if module.startswith("tw"):
        return [module]
    text = rf"from trainwatch\.rules\.{module} import|from trainwatch\.rules import .*\b{module}\b"
    importers = [p.stem for p in sorted(RULES.glob("*.py")) if re.search(text, p.read_text(encoding="utf-8"))]
    return sorted({user for name in importers for user in _users(name)})


def _code(module: str) -> str:
    return module[:5].upper()


def _reviewed() -> set[Key]:
    """Mutants that change no verdict, each with its reason in the file."""
    found = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.is_file() else {}
    return {(m["file"], m["function"], m["change"]) for m in found.get("mutant", ())}


def _print(rows: list[Row]) -> None:
    titles = ("module", "mutants", "by its tests", "by types", "by the zoo", "not noticed", "score")
    table = Table(*titles, title="mutants of the rules, and who notices them")
    total = Row("all", *(sum(getattr(row, name) for row in rows) for name in COUNTS))
    for row in (*rows, total):
        table.add_row(*row.shown())
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
