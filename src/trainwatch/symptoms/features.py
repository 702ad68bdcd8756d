"""Each feature by itself, as an audit counted it: what is no number, what never changes, what tells the target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array

WIDTH = 12


@dataclass(frozen=True)
class Features:
    """The features of one part of a data set; arrays have one entry a feature.

    Attributes:
        split: ``train`` or ``val``.
        names: What to call each.
        entries: How many were looked at.
        nans, infinities: How many of them are no number, or infinite.
        least, most: Smallest and largest finite entry; NaN where there is none.
        mean, sd: Of the finite entries.
        distinct: Different values; NaN where not counted.
        code: A value that recurs far outside of all others; NaN where there is none.
        coded: How often it occurs.
        numbered: 1 where each sample has a whole number of its own.
        beyond: Entries outside of training's range.
    """

    split: str
    names: tuple[str, ...]
    entries: Array
    nans: Array
    infinities: Array
    least: Array
    most: Array
    mean: Array
    sd: Array
    distinct: Array
    code: Array
    coded: Array
    numbered: Array
    beyond: Array

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def bad(self) -> Array:
        """Share of the entries that are not finite numbers."""
        return np.asarray((self.nans + self.infinities) / self.entries)

    @property
    def constant(self) -> Array:
        """Whether all finite entries are one and the same."""
        return np.asarray(self.least == self.most)


def features(record: RunRecord) -> dict[str, Features]:
    """Split -> its features, for `RunRecord.memo`."""
    looks = {split: record.latest("feature_stats", split) for split in ("train", "val")}
    return {
        split: Features(split, feature_names(record, len(look[1])), *look[1].T)
        for split, look in looks.items()
        if look is not None and look[1].ndim == 2 and look[1].shape[1] == WIDTH
    }


def feature_names(record: RunRecord, count: int) -> tuple[str, ...]:
    """Names of the features: those given, else by their numbers."""
    given = record.facts.get("feature_names") or ()
    if len(given) == count:
        return tuple(map(str, given))
    if count == 1:
        return ("inputs",)
    kind = "channel" if record.facts.get("layout") == "images" else "feature"
    return tuple(f"{kind} {i}" for i in range(count))


def changed_in_validation(train: Features, val: Features) -> Iterator[tuple[int, float, float]]:
    """Features that never change in training, the share of validation where they do, how likely chance deals them so.

    All entries that differ fell to validation: with a random split each does so with about the share of validation.
    """
    if len(train) != len(val):
        return
    for j in np.flatnonzero(train.constant & (val.beyond > 0)).tolist():
        split = val.entries[j] / (val.entries[j] + train.entries[j])
        yield j, float(val.beyond[j] / val.entries[j]), float(split ** val.beyond[j])


@dataclass(frozen=True)
class Tell:
    """What single features say of the target.

    Attributes:
        skill: Of each feature alone, from 0 (chance) to 1, shape (F,); NaN where not measured.
        same: Features that are the target under another name.
    """

    skill: Array
    same: Array


def tell(record: RunRecord) -> Tell | None:
    """How well each feature predicts the target alone, for `RunRecord.memo`; None where that was not measured."""
    look = record.latest("feature_alone", "train")
    return None if look is None else Tell(look[1][:, 0], np.flatnonzero(look[1][:, 1] == 1))
