"""Does mypy notice a mutant? Many tests for None are there since a value may be missing as far as types can tell."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from benchmarks.mutants.by_tests import ROOT
from benchmarks.mutants.making import Mutant


class Types:
    """A copy of the sources that mypy looks at; a context, at whose end it is gone."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp())
        shutil.copytree(ROOT / "src", self._folder / "src")
        shutil.copy(ROOT / "pyproject.toml", self._folder)
        self._sound: set[Path] = set()

    def __enter__(self) -> Types:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        shutil.rmtree(self._folder)

    def notice(self, mutant: Mutant) -> bool:
        """Whether a mutant has errors of types.

        Raises:
            RuntimeError: Its module has some as it is, or mypy fails.
        """
        source = mutant.path.read_text(encoding="utf-8")
        if mutant.path not in self._sound and not self._passes(mutant.path, ast.unparse(ast.parse(source))):
            raise RuntimeError(f"mypy --strict has errors in {mutant.path.name} as it is: mend them first")
        self._sound.add(mutant.path)
        return not self._passes(mutant.path, ast.unparse(mutant.tree))

    def _passes(self, path: Path, source: str) -> bool:
        module = self._folder / path.relative_to(ROOT)
        before = module.read_text(encoding="utf-8")
        module.write_text(source, encoding="utf-8")
        command = [sys.executable, "-m", "mypy", "--strict", str(module.relative_to(self._folder))]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False)
        module.write_text(before, encoding="utf-8")
        if done.returncode > 1:
            raise RuntimeError(f"mypy fails: {done.stderr or done.stdout}")
        return done.returncode == 0
