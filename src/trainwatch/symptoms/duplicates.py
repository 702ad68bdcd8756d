"""Samples that occur more than once, in a part of a data set or in training and validation both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.classes import share_bounds, share_difference


@dataclass(frozen=True)
class Share:
    """Some of all samples.

    Attributes:
        count, total: How many, of how many.
    """

    count: float
    total: float

    @property
    def value(self) -> float:
        return self.count / self.total if self.total else 0.0

    @property
    def low(self) -> float:
        """Lower Clopper-Pearson bound at 95 %."""
        return share_bounds(self.count, self.total)[0] if self.total else 0.0

    @property
    def error(self) -> float:
        p = (self.count + 1) / (self.total + 2)
        return float(np.sqrt(p * (1 - p) / (self.total + 2)))


@dataclass(frozen=True)
class Duplicates:
    """Copies within one part.

    Attributes:
        split: ``train`` or ``val``.
        copies: Copies beyond the first, that are not alike by chance.
        against: Samples with a copy that has another target; None where targets are not known.
        alike: Samples alike with another one, by chance or not.
        blank: Samples all of whose entries are the same.
        near: Samples that are almost equal to another one of the part; None where not looked for.
        pairs: [place, place of the copy, whether their targets differ] of the first.
    """

    split: str
    copies: Share
    against: Share | None
    alike: Share
    blank: int
    near: Share | None
    pairs: list[list[Any]] = field(repr=False)


@dataclass(frozen=True)
class Leak:
    """Validation samples that are in training, too.

    Attributes:
        copies: Those that are not alike by chance.
        near: Those that are almost equal to a training sample; None where not looked for.
        excess: Share of validation samples alike with one of training, above the share of training samples that are
            alike with another one, which is what chance gives where rows are few and recur.
        excess_error: Its standard error.
        pairs: [place in training, place in validation, whether their targets differ] of the first.
        near_pairs: [place in validation, ``train``, place in training] of the first.
    """

    copies: Share
    near: Share | None
    excess: float
    excess_error: float
    pairs: list[list[Any]] = field(repr=False)
    near_pairs: list[list[Any]] = field(repr=False)


def duplicates(record: RunRecord) -> dict[str, Duplicates]:
    """Split -> its copies, for `RunRecord.memo`."""
    found = {}
    pairs = record.facts.get("duplicate_pairs", {})
    for split in ("train", "val"):
        look = record.latest("duplicates", split)
        if look is not None:
            total, alike, copies, against, blank = look[1].tolist()
            found[split] = Duplicates(
                split,
                Share(copies, total),
                None if np.isnan(against) else Share(against, total),
                Share(alike, total),
                int(blank),
                _near(record, split, within=True),
                pairs.get(split, []),
            )
    return found


def leak(record: RunRecord) -> Leak | None:
    """Validation samples in training, for `RunRecord.memo`; None where that was not looked for."""
    look = record.latest("leaked", "val")
    if look is None:
        return None
    total, alike, copies, train, twins = look[1].tolist()
    excess, error = share_difference(twins, train, alike, total)
    near = [pair for pair in record.facts.get("near_duplicate_pairs", {}).get("val", []) if pair[1] == "train"]
    return Leak(
        Share(copies, total),
        _near(record, "val", within=False),
        excess,
        error,
        record.facts.get("duplicate_pairs", {}).get("leaked", []),
        near,
    )


def _near(record: RunRecord, split: str, *, within: bool) -> Share | None:
    """Samples almost equal to another one, of the same part or of the other."""
    look = record.latest("near_duplicates", split)
    if look is None:
        return None
    total, near, across, _ = look[1].tolist()
    return Share(near - across if within else across, total)
