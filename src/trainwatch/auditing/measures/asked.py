"""All questions, asked in turn: one that fails or cannot be answered leaves the answers to the others alone."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from trainwatch.auditing.measures import alone, classes, duplicates, features, labels, near, numbers, outliers, shift
from trainwatch.auditing.measures.look import Cannot, Look
from trainwatch.auditing.measures.tasks import task_of
from trainwatch.auditing.samples import Samples
from trainwatch.engine import fault_of
from trainwatch.record import RunRecord

AUDITED = ("TW105", "TW106", "TW107", "TW108", "TW109", "TW110", "TW111")
QUESTIONS = (classes, numbers, features, duplicates, near, alone, outliers, labels, shift)


def measured(
    parts: Sequence[Samples], *, task: str | None = None, near_duplicates: bool = False, seed: int = 0
) -> RunRecord:
    """Look at data before training.

    Args:
        parts: The training part, and the validation part where there is one.
        task: As in the fact ``task`` of a record; None to tell it from the targets.
        near_duplicates: Whether to look for samples that are almost equal, too, which takes longer.
        seed: Of the subsets that are drawn of large sets. The same seed gives the same record.

    Returns:
        A record without optimiser steps, whose fact ``subject`` is ``data``. What could not be measured stands in
        the fact ``switched_off`` with the reason.

    Raises:
        ValueError: There is no training part, or there are several parts of one kind.
    """
    by_split = {part.split: part for part in parts}
    if "train" not in by_split or len(by_split) != len(parts):
        raise ValueError(
            f"an audit needs one training part and at most one of validation, got {[p.split for p in parts]}"
        )
    train, val = by_split["train"], by_split.get("val")
    record = RunRecord()
    record.set_fact("subject", "data")
    record.set_fact("task", task_of(train, task))
    look = Look(train, val, record.facts["task"], near_duplicates, seed, record)
    for question in QUESTIONS:
        if len(train):
            _ask(question, look)
        else:
            _switch_off(record, question.QUANTITIES, "there are no training samples")
    return record


def _ask(question: ModuleType, look: Look) -> None:
    try:
        question.measure(look)
    except Cannot as reason:
        _switch_off(look.record, question.QUANTITIES, str(reason))
    except Exception as error:
        look.record.add_fault(fault_of(f"audit of {question.__name__.rpartition('.')[2]}", error, 0))
        _switch_off(look.record, question.QUANTITIES, f"it failed with {type(error).__name__} (see TW000)")


def _switch_off(record: RunRecord, quantities: Sequence[str], reason: str) -> None:
    missing = {q: reason for q in quantities if not record.has(q)}
    record.set_fact("switched_off", {**record.facts.get("switched_off", {}), **missing})
