"""What a rule is: a frozen dataclass whose fields are its thresholds and whose docstring is its page."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.confidence import confidence_of

SURE = 5.75  # standard errors; beyond, one diagnosis is as sure as another
MODEST = 0.999  # margin of a diagnosis that whatever else is wrong comes before; no measurement gives just that
Predicate = Callable[[Diagnosis, Diagnosis], bool]  # (cause, effect) -> does the cause account for the effect?


class NotChecked(Exception):
    """Raised by a rule that abstains; its text is the reason, as the report prints it."""


@dataclass(frozen=True)
class ProbeRequest:
    """A wish of a rule for an experiment on the live model. Data only: the governor decides.

    Attributes:
        kind: Which probe.
        where: Module or parameter names, or empty for the whole model.
        reason: Why, in words; printed with the report's cost table.
        priority: Higher is run first.
    """

    kind: str
    where: tuple[str, ...] = ()
    reason: str = ""
    priority: float = 0.0


@dataclass(frozen=True)
class Rule(ABC):
    """Base of all rules. A subclass's fields are its thresholds; its docstring has the headings of its page.

    Attributes:
        code: ``TWfnn``; the file is named ``twfnn_some_name.py``.
        name: Flags the pattern, not the cure.
        severity: Severity unless the rule says otherwise per diagnosis.
        section: Section of the knowledge base.
        needs: Quantities without which the rule cannot judge.
        status: ``"stable"``, ``"preview"`` (off unless selected) or ``"deprecated"``.
        at_first_look: The finding is a fact, not a statistic: reported live without a second look.
        explains: Code of an effect -> when this rule's diagnosis accounts for it.
        explained_by: Code of a cause -> when that rule's diagnosis accounts for this one's.
        after: Codes that are named before its own where they are found, are as severe and neither is a consequence.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    severity: ClassVar[Severity] = Severity.WARNING
    section: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    status: ClassVar[str] = "stable"
    at_first_look: ClassVar[bool] = False
    explains: ClassVar[Mapping[str, Predicate]] = {}
    explained_by: ClassVar[Mapping[str, Predicate]] = {}
    after: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Judge a record.

        Yields:
            One diagnosis per fault found; nothing where all is well.

        Raises:
            NotChecked: The record lacks what is needed for a verdict either way.
        """

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Experiments that would sharpen the verdict on this record."""
        return ()

    def fires(self, record: RunRecord) -> bool:
        """Whether the rule finds its fault, as far as it can judge the record."""
        try:
            return any(True for _ in self.check(record))
        except NotChecked:
            return False

    def diagnose(self, summary: str, *, margin: float, **fields: Any) -> Diagnosis:
        """A diagnosis under this rule's name; `fields` are those of `Diagnosis`."""
        fields.setdefault("severity", self.severity)
        return Diagnosis(
            code=self.code,
            name=self.name,
            section=self.section,
            summary=summary,
            margin=margin,
            confidence=confidence_of(margin, self.code, fields["severity"]),
            **fields,
        )


def always(cause: Diagnosis, effect: Diagnosis) -> bool:
    """Predicate: wherever both are found, the first accounts for the second."""
    return True


def no_remark(cause: Diagnosis, effect: Diagnosis) -> bool:
    """Predicate: the cause is a warning or worse; a remark accounts for nothing."""
    return cause.severity >= Severity.WARNING


def not_later(cause: Diagnosis, effect: Diagnosis) -> bool:
    """Predicate: the cause began no later than the effect, as far as both onsets are known."""
    return cause.onset_step is None or effect.onset_step is None or cause.onset_step <= effect.onset_step


def no_surer(cause: Diagnosis, effect: Diagnosis) -> bool:
    """Predicate: the effect is no surer than the cause, which accounts for it."""
    return surely(effect) <= surely(cause)


def surely(diagnosis: Diagnosis) -> float:
    """How sure a diagnosis is beside others of its run: its margin, as far as that tells.

    Not its confidence, so that no verdict changes where the zoo has grown and confidence was fitted anew.
    """
    return 0.0 if math.isnan(diagnosis.margin) else min(diagnosis.margin, SURE)
