"""The pictures of an audit: classes, spreads of features, samples of each class, doubtful labels, copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainwatch.auditing.samples import Samples
from trainwatch.auditing.spreads import NAMED, features_figure
from trainwatch.auditing.thumbnails import Thumbnails
from trainwatch.diagnosis import Diagnosis
from trainwatch.figures import Bars, Figure, Gallery
from trainwatch.record import RunRecord
from trainwatch.symptoms.labels import label_noise

MOST_CLASSES = 64  # with a bar
SHOWN_CLASSES = 20  # with samples
OF_A_CLASS = 8
UNCLASSED = 24
SUSPECTS = 24
PAIRS = 12
COPIES = {"train": "Twice in training", "val": "Twice in validation", "leaked": "In training and in validation"}


def pictures_of(parts: Sequence[Samples], record: RunRecord, found: Sequence[Diagnosis] = ()) -> dict[str, Figure]:
    """Chart data and small pictures of an audit.

    Args:
        parts: What was read.
        record: What was measured of it.
        found: What was found: the features that it names come first, and only where labels were found to be wrong
            are those that look wrong said to be.

    Returns:
        ``classes`` (samples of each), ``features`` (histograms of the most telling ones) and, of images, ``samples``
        (of each class), ``suspects`` (labels that a forest doubts, with what it says) and ``copies`` (samples that
        occur more than once), as far as there are any.
    """
    held: dict[str, Samples] = {part.split: part for part in parts}
    figures: dict[str, Figure | None] = {
        "classes": _classes(held, record),
        "features": features_figure(held, {name for d in found for name in d.where}, classes=_classified(record)),
    }
    if held["train"].layout == "images":
        shown = {split: Thumbnails(part.inputs) for split, part in held.items()}
        figures["suspects"] = _suspects(held, shown, record, any(d.code == "TW106" for d in found))
        figures["copies"] = _copies(held, shown, record)
        figures["samples"] = _samples(held["train"], shown["train"], record)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _classified(record: RunRecord) -> bool:
    return record.facts.get("task") in ("binary", "multiclass")


def _names(record: RunRecord, count: int) -> list[str]:
    given = record.facts.get("class_names") or []
    return [str(given[i]) if i < len(given) else str(i) for i in range(count)]


def _classes(held: dict[str, Samples], record: RunRecord) -> Bars | None:
    targets = {NAMED[split]: part.targets for split, part in held.items() if part.targets is not None}
    if not _classified(record) or not targets:
        return None
    width = max(int(values.max()) for values in targets.values()) + 1
    if width > MOST_CLASSES:
        return None
    counts = {name: np.bincount(values, minlength=width) for name, values in targets.items()}
    groups = {name: tuple(map(float, of_class)) for name, of_class in counts.items()}
    return Bars(title="Samples of each class", labels=tuple(_names(record, width)), groups=groups)


def _samples(train: Samples, shown: Thumbnails, record: RunRecord) -> Gallery | None:
    if not _classified(record) or train.targets is None:
        tiles = tuple((shown.png(row), _place(train, row)) for row in _evenly(np.arange(len(train)), UNCLASSED))
        return Gallery("Samples of training", {"all": tiles})
    present = np.unique(train.targets)
    names = _names(record, int(present[-1]) + 1)
    groups = {}
    for label in present[:SHOWN_CLASSES].tolist():
        rows = np.flatnonzero(train.targets == label)
        said = f"{names[label]}: {len(rows):,} samples"
        groups[said] = tuple((shown.png(row), _place(train, row)) for row in _evenly(rows, OF_A_CLASS))
    more = f" ({SHOWN_CLASSES} of {len(present)} classes)" if len(present) > SHOWN_CLASSES else ""
    return Gallery(f"Samples of training by class{more}", groups)


def _suspects(
    held: dict[str, Samples], shown: dict[str, Thumbnails], record: RunRecord, doubted: bool
) -> Gallery | None:
    groups = {}
    for noise in record.memo(label_noise):
        part, some = held[noise.kind], noise.suspects[:SUSPECTS]
        if not some:
            continue
        names = _names(record, 1 + max(max(s.given, s.predicted) for s in some))
        rows = np.searchsorted(part.places, [s.place for s in some]).tolist()
        groups[f"{NAMED[noise.kind].capitalize()} labels"] = tuple(
            (shown[noise.kind].png(row), f"labelled {names[s.given]}, looks like {names[s.predicted]} "
             f"({s.votes:.0%} of the votes): {_place(part, row)}")
            for row, s in zip(rows, some, strict=True)
        )  # fmt: skip
    title = "Labels to look at first" if doubted else "Samples that look most like another class"
    return Gallery(title, groups) if groups else None


def _copies(held: dict[str, Samples], shown: dict[str, Thumbnails], record: RunRecord) -> Gallery | None:
    groups = {}
    for kind, pairs in record.facts.get("duplicate_pairs", {}).items():
        splits = ("train", "val") if kind == "leaked" else (kind, kind)
        tiles: list[tuple[str, str]] = []
        for *ends, _ in pairs[:PAIRS]:
            rows = [_row(held[split], name) for split, name in zip(splits, ends, strict=True)]
            if None in rows:
                continue
            for split, row, name in zip(splits, rows, ends, strict=True):
                tiles.append((shown[split].png(row), f"{NAMED[split]}: {name}{_label(held[split], row, record)}"))
        if tiles:
            groups[COPIES[kind]] = tuple(tiles)
    return Gallery("Samples that occur more than once", groups) if groups else None


def _row(part: Samples, name: Any) -> Any:
    """Which sample is meant by the path of its file or its place."""
    if part.files:
        return part.files.index(name) if name in part.files else None
    row = int(np.searchsorted(part.places, name))
    return row if row < len(part) and part.places[row] == name else None


def _label(part: Samples, row: int, record: RunRecord) -> str:
    if part.targets is None or not _classified(record):
        return ""
    return f", labelled {_names(record, int(part.targets[row]) + 1)[-1]}"


def _place(part: Samples, row: int) -> str:
    return part.files[row] if part.files else f"sample {part.places[row]}"


def _evenly(rows: Any, most: int) -> list[int]:
    return [int(row) for row in rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(int))]]
