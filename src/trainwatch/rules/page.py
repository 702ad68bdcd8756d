"""A rule as a page for its reader: what `trainwatch explain` prints and `docs/rules` holds."""

from __future__ import annotations

import inspect
from dataclasses import fields

from trainwatch.rules.base import Rule


def page(rule: type[Rule]) -> str:
    """The docstring of a rule as markdown, with its name, severity, section and thresholds."""
    about = f"Severity {rule.severity}, section {rule.section}, status {rule.status}."
    text = f"# {rule.code} {rule.name}\n\n{about}\n\n{inspect.getdoc(rule)}"
    lines = "\n".join(f"- `{name}` = {value!r}" for name, value in thresholds(rule).items())
    setting = f"Set them in `pyproject.toml` under `[tool.trainwatch.rules.{rule.name}]`:\n\n{lines}"
    return f"{text}\n\n## Thresholds\n\n{setting}" if lines else text


def thresholds(rule: type[Rule]) -> dict[str, object]:
    """Threshold -> what it is unless it is set."""
    default = rule()
    return {f.name: getattr(default, f.name) for f in fields(default)}
