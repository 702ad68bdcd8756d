"""Live notices: one line when a run is first judged, one when something is first found, one when it is gone."""

from __future__ import annotations

from trainwatch.diagnosis import Diagnosis
from trainwatch.report import Report
from trainwatch.reports import wording


def notice(diagnosis: Diagnosis, step: int, *, resolved: bool = False) -> str:
    """What to print at a transition of a verdict.

    Args:
        diagnosis: What was found, or is found no longer.
        step: Optimiser step of the transition.
        resolved: It is found no longer.

    Returns:
        One line, such as ``step 400  TW201 overfitting: the loss rose -> Stop at step 300``.
    """
    said = f"step {step:,}  {diagnosis.code} {wording.line(diagnosis.name)}: "
    if resolved:
        return said + "no longer found"
    advice = next((f" -> {wording.line(r.title)}" for r in wording.remedies(diagnosis) if not r.already_in_use), "")
    return f"{said}{wording.line(diagnosis.summary)}{advice}"


def all_well(report: Report, step: int) -> str:
    """What to print when a run is first judged and nothing is found: that it is watched, and what could not be seen."""
    blind = f" ({wording.count(len(report.not_checked), 'rule')} cannot judge yet)" if report.not_checked else ""
    return f"step {step:,}  watching, nothing wrong so far{blind}"
