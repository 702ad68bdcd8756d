"""A disk on which everything stops after a number of operations, as after a kill or a power cut."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Crash(BaseException):
    """The process is gone."""


class FailingDisk:
    """Lets `operations` file operations happen and raises at each one after that; a write then happens by half."""

    def __init__(self, patch: pytest.MonkeyPatch, operations: int) -> None:
        self.left = operations
        self._write = os.write
        for name in ("unlink", "replace", "rename", "mkdir", "rmdir"):
            patch.setattr(Path, name, self._counted(getattr(Path, name)))
        for name in ("open", "write", "fsync"):
            patch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.left == 0 and operation is self._write:
                self._write(args[0], bytes(args[1])[: len(args[1]) // 2])
            self.left -= 1
            if self.left < 0:
                raise Crash
            return operation(*args, **kwargs)

        return counted
