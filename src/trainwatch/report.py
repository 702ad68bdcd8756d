"""The outcome of one run: diagnoses, what could not be checked, figures, and what watching cost."""

from __future__ import annotations

import importlib
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainwatch.diagnosis import Diagnosis, Severity, diagnosis_from_plain, to_plain
from trainwatch.figures import Figure, figure_from_plain

SCHEMA = 1
IN_PART = "in part: "  # how a reason begins where a rule judged, though not by all that it asked for
Verdict = Literal["findings", "healthy", "not-judged"]


class FindingsError(RuntimeError):
    """Raised by `Report.raise_for`; carries the report as ``.report``."""

    def __init__(self, report: Report, findings: list[Diagnosis]) -> None:
        super().__init__("; ".join(f"{d.code} {d.name}: {d.summary}" for d in findings))
        self.report = report


@dataclass(frozen=True, repr=False)
class Report:
    """What trainwatch has to say about a run. True if it holds any finding of warning or above.

    Attributes:
        verdict: ``"findings"``, ``"healthy"``, or ``"not-judged"`` where too little was seen to say either.
        diagnoses: Causes, the worst first; consequences are nested in them.
        not_checked: Code of a rule -> why it could not judge, or could only in part.
        facts: What is known of the run: steps, parameters, losses seen, streams of validation.
        figures: Name -> chart data.
        overhead: Seconds spent per part, their share of the run, and what was skipped to keep the budget.
    """

    verdict: Verdict
    diagnoses: tuple[Diagnosis, ...] = ()
    not_checked: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    overhead: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Verdict and codes: figures alone would be pages."""
        return f"Report(verdict={self.verdict!r}, findings={[f'{d.code} {d.name}' for d in self.findings()]})"

    def __bool__(self) -> bool:
        return bool(self.findings("warning"))

    @property
    def ok(self) -> bool:
        """The run was judged and nothing of warning or above was found."""
        return self.verdict == "healthy"

    def findings(self, at_least: str = "warning") -> list[Diagnosis]:
        """All diagnoses, nested ones included, of a severity or above."""
        level = Severity(at_least)
        return [d for cause in self.diagnoses for d in cause.walk() if d.severity >= level]

    def raise_for(self, at_least: str = "warning") -> None:
        """Raise `FindingsError` if any diagnosis is of this severity or above.

        Args:
            at_least: ``"info"``, ``"warning"`` or ``"error"``.

        Raises:
            FindingsError: There are such diagnoses.
            ValueError: `at_least` is no severity.
        """
        if found := self.findings(at_least):
            raise FindingsError(self, found)

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON types, with the version of its schema under ``schema``."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "diagnoses": to_plain(self.diagnoses),
            "not_checked": dict(sorted(self.not_checked.items())),
            "facts": to_plain(self.facts),
            "figures": {name: {"kind": f.kind, **to_plain(f)} for name, f in self.figures.items()},
            "overhead": to_plain(self.overhead),
        }

    def to_json(self) -> str:
        """The report as JSON text; the same record gives the same text, byte for byte."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read back what `to_json` wrote.

        Raises:
            ValueError: The text is no report, or one of a newer schema.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ValueError(f"this is not a trainwatch report in JSON: {error}") from None
        if not isinstance(data, dict) or "schema" not in data or "verdict" not in data:
            raise ValueError("this JSON is not a trainwatch report: it has no 'schema' and 'verdict'")
        if data["schema"] != SCHEMA:
            raise ValueError(
                f"this report has schema {data['schema']!r}; this version of trainwatch reads {SCHEMA}: "
                "upgrade trainwatch-doctor, or diagnose the record again"
            )
        try:
            return cls(
                verdict=data["verdict"],
                diagnoses=tuple(diagnosis_from_plain(d) for d in data["diagnoses"]),
                not_checked=data["not_checked"],
                facts=data["facts"],
                figures={name: figure_from_plain(f) for name, f in data["figures"].items()},
                overhead=data["overhead"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this trainwatch report is damaged: {type(error).__name__}: {error}") from None

    def render(self, format: str) -> str:
        """The report as text.

        Args:
            format: One of ``trainwatch.reports.FORMATS``: ``text``, ``md``, ``json`` or ``html``.

        Raises:
            ValueError: The format is unknown.
        """
        # Looked up by name: renderers know reports, not the other way round.
        return str(importlib.import_module("trainwatch.reports").render(self, format))

    def to_markdown(self) -> str:
        """The report as Markdown."""
        return self.render("md")

    def to_html(self) -> str:
        """The report as one self-contained HTML page."""
        return self.render("html")

    def _repr_html_(self) -> str:
        return str(importlib.import_module("trainwatch.reports.notebook").render(self))

    def print(self) -> None:
        """Print the report to the terminal, in colour where there is one."""
        before = random.getstate()  # importing Rich draws numbers, which trainings to come must not miss
        try:
            importlib.import_module("trainwatch.reports.console").show(self)
        finally:
            random.setstate(before)

    def save(self, directory: str | Path) -> list[Path]:
        """Write ``report.json``, ``report.md`` and ``report.html`` into a directory, made if missing.

        Returns:
            The paths written.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        texts = {"report.json": self.to_json(), "report.md": self.to_markdown(), "report.html": self.to_html()}
        for name, text in texts.items():
            (directory / name).write_text(text, encoding="utf-8")
        return [directory / name for name in texts]
