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
    """A copy of the sources, which a daemon of mypy watches; a context, at whose end both are gone."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp())
        shutil.copytree(ROOT / "src", self._folder / "src")
        shutil.copy(ROOT / "pyproject.toml", self._folder)
        self._asked = False

    def __enter__(self) -> Types:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._asked:
            self._mypy("stop")
        shutil.rmtree(self._folder)

    def notice(self, mutant: Mutant) -> bool:
        """Whether a mutant has errors of types, where the module has none.

        Raises:
            RuntimeError: The sources have errors as they are.
        """
        if not self._asked and not self._passes():
            raise RuntimeError("mypy --strict src has errors: mend them first")
        self._asked = True
        module = self._folder / mutant.path.relative_to(ROOT)
        sound = module.read_text(encoding="utf-8")
        module.write_text(ast.unparse(mutant.tree), encoding="utf-8")
        passes = self._passes()
        module.write_text(sound, encoding="utf-8")
        return not passes

    def _passes(self) -> bool:
        return self._mypy("run", "--", "--strict", "src/trainwatch/rules") == 0

    def _mypy(self, *command: str) -> int:
        called = [sys.executable, "-m", "mypy.dmypy", "--status-file", "status.json", *command]
        return subprocess.run(called, cwd=self._folder, capture_output=True, check=False).returncode
