"""Findings while the training runs: reported once two looks at different data found them, resolved when gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.record import RunRecord
from trainwatch.report import Report
from trainwatch.rules import all_rules

Say = Callable[[str, Diagnosis, int], None]  # "reported" or "resolved", what, step


class LiveFindings:
    """Follows verdicts from look to look and notes their transitions in the record.

    Looking often finds chance effects often: a finding counts only when a second look at newer data (a new
    validation pass for a rule on validation data, new steps for the others) finds it again, unless the rule states
    a fact (`Rule.at_first_look`).

    Attributes:
        stop: A finding named in `stop_on` was reported.
    """

    def __init__(
        self, record: RunRecord, on_finding: Callable[[Diagnosis], None] | None, stop_on: Sequence[str], say: Say | None
    ) -> None:
        self.stop = False
        self._record, self._on_finding, self._say = record, on_finding, say
        self._stop_on = set(stop_on)
        self._seen: dict[str, int] = {}  # code -> amount of data at the first look that found it
        self._reported: dict[str, Diagnosis] = {}

    def look(self, report: Report, step: int, passes: int) -> None:
        """Take in the verdict of a look.

        Args:
            report: What the engine says now.
            step: Optimiser steps taken.
            passes: Validation passes finished.
        """
        found = {d.code: d for d in report.findings() if d.code in all_rules()}
        for code, diagnosis in found.items():
            rule = all_rules()[code]
            data = passes if any(q.startswith("val_") for q in rule.needs) else step
            first = self._seen.setdefault(code, data)
            if code not in self._reported and (rule.at_first_look or data > first):
                self._report(diagnosis, step)
        for code in [c for c in self._reported if c not in found]:
            self._resolve(code, step)
        self._seen = {code: first for code, first in self._seen.items() if code in found}

    def settle(self, report: Report, step: int) -> None:
        """Take in the final verdict: what it holds is reported now at the latest, what it lacks is resolved."""
        found = {d.code: d for d in report.findings() if d.code in all_rules()}
        for code in [c for c in self._reported if c not in found]:
            self._resolve(code, step)
        for code, diagnosis in found.items():
            if code not in self._reported:
                self._report(diagnosis, step, say=False)

    def _report(self, diagnosis: Diagnosis, step: int, say: bool = True) -> None:
        self._reported[diagnosis.code] = diagnosis
        self._note(diagnosis, "reported", step)
        diagnosis = diagnosis.with_(reported_step=step)
        named = {diagnosis.code, diagnosis.name, *(s.value for s in Severity if diagnosis.severity >= s)}
        self.stop = self.stop or bool(self._stop_on & named)
        if say and self._say is not None:
            self._say("reported", diagnosis, step)
        if self._on_finding is not None:
            self._on_finding(diagnosis)

    def _resolve(self, code: str, step: int) -> None:
        diagnosis = self._reported.pop(code)
        self._note(diagnosis, "resolved", step)
        if self._say is not None:
            self._say("resolved", diagnosis, step)

    def _note(self, diagnosis: Diagnosis, state: str, step: int) -> None:
        self._record.add_transition(
            {"code": diagnosis.code, "where": list(diagnosis.where), "state": state, "step": step}
        )
