"""What targets are: classes, numbers to predict, or yes / no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwatch.auditing.sources.reading import AuditError, Reading, named

FEW = 20  # distinct whole numbers that are taken for classes whatever they are
DENSE = 0.9  # of the whole numbers from 0 on occur: class numbers
IGNORED = -100  # the label that torch's losses leave out
CLASSES = ("binary", "multiclass")
NAMES = ("label", "labels", "target", "targets", "class", "y")  # by which targets are known


@dataclass(frozen=True)
class Targets:
    """Targets as the audit takes them.

    Attributes:
        values: As in `Samples.targets`; None where they are of no known kind.
        names: Of the classes.
        missing: Samples without one, shape (n,).
        note: What they were taken for, where that was not said.
    """

    values: NDArray[Any] | None
    names: tuple[str, ...]
    missing: NDArray[np.bool_]
    note: str = ""


def targets_of(values: NDArray[Any], reading: Reading) -> Targets:
    """Targets with their meaning, which `reading.task` holds from then on.

    Raises:
        AuditError: They contradict the task or the names of the classes.
    """
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    none: NDArray[np.bool_] = np.zeros(len(values), np.bool_)
    if values.dtype.kind == "M":
        return Targets(None, (), none, "the targets are dates, which are not looked at")
    if values.ndim > 2 or reading.task == "language-model":
        return Targets(None, (), none, f"targets of shape {values.shape[1:]} are not looked at")
    guessed, sure = reading.task is None, True
    if guessed:
        reading.task, sure = _task(values)
    if reading.task in CLASSES:
        found = _classes(values, reading)
        classes = len(found.names) or int(found.values.max(initial=0)) + 1 if found.values is not None else 0
        if guessed:
            reading.task = "binary" if classes <= 2 else "multiclass"
        said = "the targets were taken for classes; task='regression' makes them numbers"
        return Targets(found.values, found.names, found.missing, "" if sure else said)
    if values.dtype.kind == "U":
        raise AuditError(f"the targets are texts such as {values.flat[0]!r}, which task={reading.task!r} cannot have")
    if reading.task == "multilabel":
        return Targets(values.astype(np.int64), reading.class_names, none)
    numbers = values.astype(np.float64)
    said = "the targets were taken for numbers to predict; task='multiclass' makes them classes"
    return Targets(numbers, (), np.isnan(numbers.reshape(len(numbers), -1).sum(1)), "" if sure else said)


def _task(values: NDArray[Any]) -> tuple[str, bool]:
    """What targets look like, and whether they could be nothing else."""
    if values.dtype.kind in "Ub" and values.ndim == 1:
        return "multiclass", True
    if values.ndim == 2:
        binary = bool(np.isin(values, (0, 1)).all())
        return ("multiclass" if (values.sum(1) == 1).all() else "multilabel") if binary else "regression", True
    seen = values[np.isfinite(values) & (values != IGNORED)]
    distinct = np.unique(seen)
    if not len(distinct) or (distinct != np.round(distinct)).any():
        return "regression", True
    dense = values.dtype.kind in "ui" and distinct[0] >= 0 and len(distinct) >= DENSE * (distinct[-1] + 1)
    return "multiclass" if dense or len(distinct) <= FEW else "regression", bool(dense)


def _classes(values: NDArray[Any], reading: Reading) -> Targets:
    if values.ndim == 2:  # one-hot
        if not (np.isin(values, (0, 1)).all() and (values.sum(1) == 1).all()):
            raise AuditError(
                f"task={reading.task!r} needs one class a sample: these targets are {values.shape[1]} columns"
            )
        values = values.argmax(1)
    words = reading.words_of("the targets")
    if values.dtype.kind == "U" or words.known:
        return _by_words(values if values.dtype.kind == "U" else _spelled(values), reading)
    numbers = values.astype(np.float64)
    missing = ~np.isfinite(numbers) | (numbers == IGNORED)
    seen = numbers[~missing]
    if (seen != np.round(seen)).any():
        raise AuditError(f"task={reading.task!r} needs classes: the targets hold {seen[seen != np.round(seen)][0]:g}")
    most = int(seen.max(initial=0))
    if seen.min(initial=0) < 0 or most > 10 * (len(np.unique(seen)) + FEW):  # -1 and 1, or years
        for number in np.unique(seen).astype(np.int64):
            words.known.setdefault(str(number), len(words.known))
        return _by_words(_spelled(values), reading)
    if reading.class_names and most >= len(reading.class_names):
        raise AuditError(f"class_names has {len(reading.class_names)} names, but class {most} occurs in the targets")
    return Targets(np.where(missing, -1, numbers).astype(np.int64), reading.class_names, missing)


def _spelled(values: NDArray[Any]) -> NDArray[Any]:
    return np.array([f"{int(v)}" if np.isfinite(v) and v != IGNORED else "" for v in values.astype(np.float64)])


def _by_words(values: NDArray[Any], reading: Reading) -> Targets:
    words = reading.words_of("the targets")
    if reading.class_names and not words.known:
        words.known.update({name: i for i, name in enumerate(reading.class_names)})
    before = len(words.known)
    codes = words.codes(values.tolist())
    names = tuple(words.known)
    if reading.class_names and len(names) > before:
        raise AuditError(f"class_names lacks {named(names[before:])}, which the targets hold")
    return Targets(codes, names, codes < 0)
