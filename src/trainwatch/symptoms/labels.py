"""How many labels are wrong: what is left of the disagreement with a forest where the forest is sure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array

VOTERS = 37  # of 100 trees, those that a sample is new to: what a share of votes rests on
RECOGNISED = 0.5  # of a class: below that its samples are hard to tell, which is no reason to doubt their labels
WELL = 0.75  # of a class among the samples of the other kind, at least `FEWEST`: then it is not hard to tell
FEWEST = 10
FEWEST_COMPARED = 3  # samples of a class in each kind, for it to be compared
FEWEST_OTHERS = 30  # validation samples of those classes
BINS = 64  # of the sureness of the forest
RATES = np.concatenate([[0.0], np.geomspace(0.002, 0.5, 40)])
SLOPES = np.geomspace(1.0, 16.0, 12)  # a calibrated forest that errs from overlap alone does so with slope 1
TURNS = 48
BOUND = 1.92  # log-likelihood below its maximum: half of the 95 % quantile of chi-square with one degree of freedom


@dataclass(frozen=True)
class Suspect:
    """A sample whose label a forest that has not seen it doubts.

    Attributes:
        step: Optimiser steps taken when it was seen.
        place: Its row in that training batch, or its place in the validation pass; -1 where that is not known.
        given: Its label.
        predicted: What it looks like.
        votes: Share of votes for `predicted`.
        own: Share of votes for `given`.
    """

    step: int
    place: int
    given: int
    predicted: int
    votes: float
    own: float


@dataclass(frozen=True)
class LabelNoise:
    """Wrong labels among the held samples of one kind.

    Attributes:
        kind: ``train`` or ``val``.
        rate: Share of wrong labels that explains the disagreement best.
        low, high: Its 95 % interval.
        samples: Held samples of classes that the forest recognises.
        recognised: Share of all classes' samples that are in them.
        disagreeing: Share of `samples` whose label is not what the forest says.
        agreement: Of labels and forest beyond what chance gives (Cohen's kappa), over all held samples.
        suspects: Those that it doubts for sure, and as many as are wrong, the surest first.
        step: Optimiser steps taken before.
    """

    kind: str
    rate: float
    low: float
    high: float
    samples: int
    recognised: float
    disagreeing: float
    agreement: float
    suspects: list[Suspect] = field(repr=False)
    step: int

    @property
    def pairs(self) -> list[tuple[tuple[int, int], int]]:
        """(label, what it looks like) of the suspects with their number, the most frequent first."""
        return Counter((s.given, s.predicted) for s in self.suspects).most_common()


def label_noise(record: RunRecord) -> list[LabelNoise]:
    """Of training and of validation samples, as far as they were looked at, for `RunRecord.memo`."""
    tables = held_labels(record)
    well = {kind: _recognised(table, WELL, FEWEST) for kind, (_, table) in tables.items()}
    other = {"train": well.get("val", set()), "val": well.get("train", set())}
    return [_noise(kind, step, table, other[kind]) for kind, (step, table) in tables.items()]


@dataclass(frozen=True)
class Contrast:
    """How much more often training labels contradict a forest than validation labels do, within classes.

    Attributes:
        gap: Difference of the shares, averaged over the classes; `error` is its standard error.
        noise: Wrong training labels that account for it.
    """

    gap: float
    error: float
    noise: LabelNoise


def label_contrast(record: RunRecord) -> Contrast | None:
    """Training labels beside validation labels, for `RunRecord.memo`; None where either kind was not looked at.

    Classes that overlap, or that a forest hardly knows, do so in both kinds. Classes are weighted as differences of
    means would be; one hit and one miss are added to each (Agresti and Caffo, 2000).
    """
    tables = held_labels(record)
    if len(tables) < 2:
        return None
    (step, train), (_, val) = tables["train"], tables["val"]
    compared = []
    for label in np.unique(train[:, 2]):
        doubts = [(table[:, 2] != table[:, 3])[table[:, 2] == label] for table in (train, val)]
        if min(map(len, doubts)) >= FEWEST_COMPARED:
            compared.append([number for mine in doubts for number in ((mine.sum() + 1) / (len(mine) + 2), len(mine))])
    if not compared or sum(row[3] for row in compared) < FEWEST_OTHERS:
        return None
    share, n, other, m = np.array(compared).T
    weight = n * m / (n + m) / (n * m / (n + m)).sum()
    gap = float(weight @ (share - other))
    error = float(np.sqrt(weight**2 @ (share * (1 - share) / n + other * (1 - other) / m)))
    # A wrong label contradicts the forest where a right one would have agreed.
    rate, low, high = (float(np.clip(g / max(1 - weight @ other, 0.1), 0, 1)) for g in
                       (gap, gap - 1.96 * error, gap + 1.96 * error))  # fmt: skip
    wrong = train[:, 2] != train[:, 3]
    suspects, agreement = _suspects(train, round(rate * len(train))), kappa(train[:, 2], train[:, 3])
    noise = LabelNoise("train", rate, low, high, len(train), 1.0, float(wrong.mean()), agreement, suspects, step)
    return Contrast(gap, error, noise)


def held_labels(record: RunRecord) -> dict[str, tuple[int, Array]]:
    """Of each kind that was looked at: optimiser steps taken before, and the rows of its samples."""
    rows = {kind: record.latest("held_labels", kind) for kind in ("train", "val")}
    return {kind: (row[0], row[1][~np.isnan(row[1][:, 2])]) for kind, row in rows.items() if row is not None}


def _recognised(table: Array, share: float, fewest: int = 1) -> set[float]:
    """Classes with so many samples, of which such a share is recognised."""
    right = table[:, 2] == table[:, 3]
    samples = {float(label): right[table[:, 2] == label] for label in np.unique(table[:, 2])}
    return {label for label, mine in samples.items() if len(mine) >= fewest and mine.mean() >= share}


def _noise(kind: str, step: int, table: Array, elsewhere: set[float]) -> LabelNoise:
    given, predicted, votes = table[:, 2], table[:, 3], table[:, 4]
    right = given == predicted
    known = np.isin(given, list(_recognised(table, RECOGNISED) | elsewhere))
    rate, low, high = lapse_rate(_log_odds(votes[known]), ~right[known]) if known.any() else (0.0, 0.0, 1.0)
    return LabelNoise(
        kind,
        rate,
        low,
        high,
        int(known.sum()),
        float(known.mean()),
        float(1 - right[known].mean()) if known.any() else np.nan,
        kappa(given, predicted),
        _suspects(table[known], round(rate * int(known.sum()))),
        step,
    )


def lapse_rate(sureness: Array, errors: Array) -> tuple[float, float, float]:
    """The share of errors that no sureness does away with, and its 95 % interval by profile likelihood.

    P(error) = rate + (1 - rate) / (1 + exp(slope * (sureness - turn))): the psychometric function with a lapse rate
    (Wichmann and Hill, "The psychometric function", 2001). Classes that overlap make errors that die out with
    sureness, wrong labels make errors that do not.

    Args:
        sureness: Log-odds of the votes for what was predicted, shape (n,).
        errors: Whether the label is another, shape (n,).
    """
    edges = np.unique(np.quantile(sureness, np.linspace(0, 1, BINS + 1)))
    bins = np.searchsorted(edges, sureness, side="right")
    count = np.bincount(bins)
    filled = count > 0
    wrong = np.bincount(bins, errors)[filled]
    right = count[filled] - wrong
    level = np.bincount(bins, sureness)[filled] / count[filled]
    turns = np.linspace(level.min() - 4, level.max() + 4, TURNS)
    curves = 1 / (1 + np.exp(np.clip(SLOPES[:, None, None] * (level - turns[:, None]), -30, 30)))
    errs = RATES[:, None, None, None] + (1 - RATES[:, None, None, None]) * curves
    likelihood = np.log(errs + 1e-12) @ wrong + np.log1p(1e-12 - errs) @ right
    profile = likelihood.max((1, 2))
    inside = RATES[profile >= profile.max() - BOUND]
    return float(RATES[profile.argmax()]), float(inside.min()), float(inside.max())


def _log_odds(votes: Array) -> Array:
    share = (votes * VOTERS + 0.5) / (VOTERS + 1)
    return np.asarray(np.log(share / (1 - share)))


def kappa(given: Array, predicted: Array) -> float:
    """Agreement of labels and predictions beyond what chance gives (Cohen, 1960)."""
    chance = chance_agreement(given, predicted)
    return float(((given == predicted).mean() - chance) / (1 - chance)) if chance < 1 else 0.0


def chance_agreement(given: Array, predicted: Array) -> float:
    """Share of samples on which labels and predictions would agree if neither knew of the other."""
    return sum(float((given == k).mean() * (predicted == k).mean()) for k in np.unique(given))


def _suspects(table: Array, wrong: int) -> list[Suspect]:
    """Samples that look like another class as much as its own do on average (confident learning, Northcutt 2021).

    And the surest others, until they are as many as are wrong: half of all samples look less like their class than the
    average does.
    """
    given, predicted, votes, own = table.T[2:]
    usual = {label: own[given == label].mean() for label in np.unique(given)}
    sure = np.array([v >= usual.get(p, np.inf) for v, p in zip(votes, predicted, strict=True)], bool)
    doubted = np.flatnonzero(given != predicted)
    order = doubted[np.argsort((own - votes)[doubted], kind="stable")]
    order = order[sure[order] | (np.arange(len(order)) < wrong)]
    return [Suspect(int(a), int(b), int(c), int(d), float(e), float(f)) for a, b, c, d, e, f in table[order]]
