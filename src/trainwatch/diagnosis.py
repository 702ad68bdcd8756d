"""What a rule says: a diagnosis with its evidence and remedies. Plain data, JSON-able, no behaviour."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, fields, replace
from typing import Any


class Severity(str, enum.Enum):
    """How much a diagnosis matters. Ordered: ``info`` < ``warning`` < ``error``.

    Warning and above means: act. Info never counts as a finding. Members compare with one another and with
    their plain strings.
    """

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)

    def __lt__(self, other: str) -> bool:
        return self.rank < Severity(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Severity(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Severity(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Severity(other).rank

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Evidence:
    """One measured number behind a verdict.

    Attributes:
        name: What was measured, in words: ``"validation loss above its minimum"``.
        value: The measured value, or None where only the text matters.
        threshold: The value at which the rule fires, if this number has one.
        unit: Unit printed after the value, such as ``"%"`` or ``"steps"``.
        where: Module, parameter, class or pass that it was measured on.
        step: Optimiser step at which it was measured.
        note: Interval, provenance or comparison in words.
    """

    name: str
    value: float | None = None
    threshold: float | None = None
    unit: str = ""
    where: str = ""
    step: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Remedy:
    """One thing to do about a diagnosis, with numbers from the run it was made for.

    Attributes:
        id: Stable identifier from the catalogue in `trainwatch.remedies`.
        title: Imperative headline.
        why: Why it helps here.
        how: Code or steps to paste, filled with this run's numbers, for the framework of the run.
        already_in_use: The run already does this; ranked after the others.
        strength: ``"strong"``, ``"moderate"`` or ``"weak"``: how well the literature supports it.
        lightning: The same for Lightning, where that differs from plain PyTorch.
    """

    id: str
    title: str
    why: str
    how: str
    already_in_use: bool = False
    strength: str = "moderate"
    lightning: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """A verdict of one rule on one run.

    Attributes:
        code: ``TWfnn``.
        name: Name of the rule, as in settings.
        severity: See `Severity`.
        summary: One sentence with the decisive numbers.
        section: Section of the knowledge base, such as ``"§9"``.
        where: Names of the modules, parameters, classes or passes concerned.
        onset_step: Estimated optimiser step at which the fault began.
        reported_step: Step at which it was first reported; None before that.
        margin: (measured - threshold) in standard errors of the measurement.
        confidence: Probability that the diagnosis is right, in [0, 1], as fitted to runs whose faults are known (of a
            remark: that what it names is a fault of this run).
        evidence: The numbers behind the verdict, the decisive one first.
        remedies: What to do, the best fit first.
        consequences: Diagnoses that this one explains.
    """

    code: str
    name: str
    severity: Severity
    summary: str
    section: str = ""
    where: tuple[str, ...] = ()
    onset_step: int | None = None
    reported_step: int | None = None
    margin: float = 0.0
    confidence: float = 0.0
    evidence: tuple[Evidence, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    consequences: tuple[Diagnosis, ...] = ()

    def with_(self, **changes: Any) -> Diagnosis:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def walk(self) -> list[Diagnosis]:
        """This diagnosis and everything nested below it, cause first."""
        return [self, *(d for c in self.consequences for d in c.walk())]


def to_plain(value: Any) -> Any:
    """Turn diagnoses, figures and what they hold into JSON types.

    Floats are rounded to six significant digits, so that one record gives one report, byte for byte. JSON has no
    NaN or infinity: they become None and ``"inf"`` / ``"-inf"``.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return float(f"{value:.6g}") if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return to_plain(value.tolist())
    raise TypeError(f"cannot put a {type(value).__name__} into a report")


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def diagnosis_from_plain(data: dict[str, Any]) -> Diagnosis:
    """The inverse of `to_plain` for a diagnosis."""
    numbers = {"value", "threshold"}
    return Diagnosis(
        **{
            **data,
            "severity": Severity(data["severity"]),
            "where": tuple(data["where"]),
            "margin": _number(data["margin"]),
            "evidence": tuple(
                Evidence(**{k: _number(v) if k in numbers else v for k, v in e.items()}) for e in data["evidence"]
            ),
            "remedies": tuple(Remedy(**r) for r in data["remedies"]),
            "consequences": tuple(diagnosis_from_plain(c) for c in data["consequences"]),
        }
    )
