"""Whether validation names classes otherwise than training: the network is right but for what they are called."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.classes import confusions
from trainwatch.symptoms.curves import Array

FEWEST = 30  # samples: the best of many renamings fits a few by chance


@dataclass(frozen=True)
class Renamed:
    """The renaming of the classes by which validation agrees best with the network.

    Attributes:
        step: Optimiser steps before the pass.
        named: What the network says where validation says class i, shape (classes,); i where it never says that.
        accuracy: As validation names them; `renamed` is that by the renaming.
        error: Standard error of the difference.
    """

    step: int
    named: Array
    accuracy: float
    renamed: float
    error: float

    @property
    def gain(self) -> float:
        return self.renamed - self.accuracy


def renamed_classes(record: RunRecord) -> Renamed | None:
    """By the last validation pass, for `RunRecord.memo`; None where it says too little.

    Of all renamings that keep apart what is apart the one with most hits, which is an assignment (Kuhn, 1955).
    """
    tables = record.memo(confusions)
    if not tables or (total := float(tables[-1].table.sum())) < FEWEST:
        return None
    from scipy.optimize import linear_sum_assignment  # here, since a run without classes never needs it

    last = tables[-1]
    rows, named = linear_sum_assignment(last.table, maximize=True)
    renamed = float(last.table[rows, named].sum() / total)
    gain = renamed - last.accuracy  # each sample counts for one of the two, for both or for neither
    moved = (last.table[rows, named].sum() + last.hits.sum() - 2 * last.hits[rows == named].sum()) / total
    named = np.where(last.table[rows, named] > 0, named, rows)
    return Renamed(last.step, named, last.accuracy, renamed, float(np.sqrt(max(moved - gain**2, 0.0) / total)))
