"""Packages that diagnose training runs, as pip installs them, attached to the zoo's trainings.

One adapter a package: it gives the package what its own documentation asks for, and says which of our codes each of its
alarms may be read as. Read generously: wherever an alarm could name the cause, it does. No code of theirs is here.
"""

from __future__ import annotations

from importlib import import_module

from benchmarks.rivals.installed.adapter import Adapter

HOOKED = ("torchmortem", "traintools", "gradsnitch")
"""Those that look into the model and are attached to a training."""

READERS = ("training_doctor", "trainspotter", "runmedic")
"""Those that read a log: what a record holds is enough for them."""


def adapter(name: str) -> type[Adapter]:
    """The adapter of a package, which is imported when it is made, so that codes are known without it."""
    return import_module(f"benchmarks.rivals.installed.{name}").ADAPTER  # type: ignore[no-any-return]
