"""The live notice: one line when something is first found, one when it is gone."""

from __future__ import annotations

from trainwatch.diagnosis import Diagnosis
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
