"""Runs that this process watches at present: which directory is taken, and what a forked process must not touch."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any, Protocol


class Watched(Protocol):
    """A run that is being watched."""

    directory: Path | None

    def finish(self) -> Any:
        """End it as if its training had ended."""

    def abandon(self) -> None:
        """Let go of it: it goes on in another process."""


_running: weakref.WeakSet[Watched] = weakref.WeakSet()


def began(run: Watched) -> None:
    """A run is watched from now on."""
    _running.add(run)


def ended(run: Watched) -> None:
    """A run is over."""
    _running.discard(run)


def end_in(directory: Path | None) -> None:
    """End the runs that this process still records into a directory: the next one records there, and moves theirs."""
    if directory is not None:
        for other in list(_running):
            if other.directory is not None and other.directory.resolve() == directory.resolve():
                other.finish()


def _leave_to_parent() -> None:
    """In a forked process, such as a worker of a loader: the runs are the parent's to watch, write and report."""
    while _running:
        _running.pop().abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
