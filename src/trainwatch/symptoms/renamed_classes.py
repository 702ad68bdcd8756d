"""Whether validation names classes otherwise than training: the network is right but for what they are called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.classes import confusions
from trainwatch.symptoms.curves import Array, primary_stream, samples_of

FEWEST = 5  # samples of a class: fewer may be called anything by chance
MOST = 0.5  # of a class's samples: what the network calls it


@dataclass(frozen=True)
class Renamed:
    """What the network calls the classes of validation.

    Attributes:
        step: Optimiser steps before the pass.
        moved: Class in validation -> what the network calls it; the others it calls as validation does, or nothing for
            sure.
        accuracy: As validation names them; `renamed` is that with the moved ones renamed.
        error: Standard error of the difference.
    """

    step: int
    moved: dict[int, int]
    accuracy: float
    renamed: float
    error: float

    @property
    def gain(self) -> float:
        return self.renamed - self.accuracy


def renamed_classes(record: RunRecord) -> Renamed | None:
    """By the last validation pass, for `RunRecord.memo`; None where fewer than two classes have another name.

    And where two have the same: the network does not tell them apart, so that it is no question of names.
    """
    tables = record.memo(confusions)
    if not tables:
        return None
    table, total = tables[-1].table, float(tables[-1].table.sum())
    names = {int(i): int(table[i].argmax()) for i in np.flatnonzero(tables[-1].totals >= FEWEST)
             if table[i].max() > MOST * table[i].sum()}  # fmt: skip
    moved = {i: name for i, name in names.items() if name != i}
    if len(moved) < 2 or len(set(names.values())) < len(names):
        return None
    hits, lost = (_share(table, pairs, total) for pairs in (moved.items(), ((i, i) for i in moved)))
    known = samples_of(record, primary_stream(record))
    samples = min(total, known or total)  # positions of one image stand or fall together
    error = float(np.sqrt(max(hits + lost - (hits - lost) ** 2, 0.0) / samples))
    return Renamed(tables[-1].step, moved, tables[-1].accuracy, tables[-1].accuracy + hits - lost, error)


def _share(table: Array, cells: Iterable[tuple[int, int]], total: float) -> float:
    return sum(float(table[cell]) for cell in cells) / total
