"""`trainwatch.audit`: read, measure, judge, and draw what was found."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trainwatch.auditing.facts import data_facts
from trainwatch.auditing.pictures import pictures_of
from trainwatch.auditing.sources import AuditError, Reading, read_parts
from trainwatch.auditing.sources.reading import SAMPLES
from trainwatch.capture.tasks import TASKS, Task
from trainwatch.config import Settings, settings_from
from trainwatch.engine import fault_of, judge
from trainwatch.report import Report


def audit(
    train: Any,
    val: Any = None,
    *,
    target: str | None = None,
    task: Task | None = None,
    class_names: Sequence[str] | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    limit: int = SAMPLES,
    near_duplicates: bool = False,
    consume: bool = False,
    progress: bool | None = None,
) -> Report:
    """Look at data before training: what is broken, wrongly labelled, there twice, or other in validation.

    Nothing is changed: random states are afterwards as they were, data sets are indexed, loaders start no worker.

    Args:
        train: A path (folder of images, ``.csv``, ``.parquet``, ``.npy``, ``.npz``, or a folder with both parts),
            arrays or tensors, a pair (inputs, targets), a dict of arrays, a data frame, a Dataset, a DataLoader, or a
            LightningDataModule, which gives both parts.
        val: The validation part, as any of these.
        target: Column or key that holds the targets, where its name does not tell.
        task: What the targets are, where they do not tell.
        class_names: One per class number.
        settings: `Settings`, or some of its fields over those of ``pyproject.toml``.
        limit: Most samples of each part; of larger ones an even subset is read, and the report says so.
        near_duplicates: Look for samples that are almost equal, too, which takes longer.
        consume: Iterators, which looking at them uses up, may be used up.
        progress: Show a bar on standard error; None where that is a terminal.

    Returns:
        The report; its fact ``data`` says what was read.

    Raises:
        AuditError: Data cannot be read; the text names the input and the remedy.
        SettingsError: A setting cannot be used.
    """
    if task is not None and task not in TASKS:
        raise AuditError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise AuditError(f"limit must be a number of samples, at least 1, got {limit!r}")
    if isinstance(class_names, str) or (class_names is not None and not isinstance(class_names, Iterable)):
        raise AuditError(f"class_names must be a sequence such as ['cat', 'dog'], got {class_names!r}")
    chosen = settings_from(settings)
    reading = Reading(
        limit=limit,
        target=target,
        task=task,
        class_names=tuple(map(str, class_names or ())),
        consume=consume,
        progress=sys.stderr.isatty() if progress is None else progress,
    )
    parts = read_parts(train, val, reading)
    from trainwatch.auditing.measures import AUDITED, measured  # with scikit-learn, once the data could be read

    record = measured(parts, task=reading.task, near_duplicates=near_duplicates)
    record.set_fact("data", data_facts(parts, reading.task))
    if names := max((part.class_names for part in parts), key=len):
        record.set_fact("class_names", list(names))
    report = judge(record, chosen, only=AUDITED)
    try:
        drawn = pictures_of(parts, record, report.findings("info"))
    except Exception as error:
        if chosen.strict:
            raise
        drawn = {}
        record.add_fault(fault_of("pictures", error, 0))
        report = judge(record, chosen, only=AUDITED)
    return replace(report, figures={**report.figures, **drawn})
