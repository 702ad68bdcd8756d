"""One file a diagnosis. A new rule is a new file here: nothing else needs an edit."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points

from trainwatch.rules.base import NotChecked, ProbeRequest, Rule

__all__ = ["NotChecked", "ProbeRequest", "Rule", "all_rules"]


def _classes() -> Iterator[type[Rule]]:
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("tw"):
            found = importlib.import_module(f"{__name__}.{module.name}")
            yield from (
                c
                for _, c in inspect.getmembers(found, inspect.isclass)
                if issubclass(c, Rule) and c.__module__ == found.__name__
            )
    for entry in entry_points(group="trainwatch.rules"):
        yield entry.load()


@cache
def all_rules() -> dict[str, type[Rule]]:
    """Code -> rule class, in order of code: those in this folder and those of the entry point group.

    Raises:
        ValueError: Two rules share a code or a name.
    """
    rules: dict[str, type[Rule]] = {}
    for rule in sorted(_classes(), key=lambda r: r.code):
        clash = next((r for r in rules.values() if rule.code == r.code or rule.name == r.name), None)
        if clash is not None:
            raise ValueError(
                f"rules {clash.__qualname__} and {rule.__qualname__} share a code or name: {rule.code} {rule.name}"
            )
        rules[rule.code] = rule
    return rules
