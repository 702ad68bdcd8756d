"""Samples that occur more than once: within a part, and in training and validation both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainwatch.auditing.measures.features import named
from trainwatch.auditing.measures.look import STEP, Array, Look, chunks, labels_of
from trainwatch.auditing.samples import Samples

QUANTITIES = ("duplicates", "leaked")
DRAWS = 8  # of half of the features
LISTED = 100  # pairs whose places are kept


@dataclass(frozen=True)
class Pool:
    """The samples of all parts, one behind the other.

    Attributes:
        parts: Split -> samples.
        kind: Number of the part of each, shape (n,), as are the others.
        group: The same number for samples that are alike.
        copy: Alike, and not by chance.
        blank: All entries are the same.
        label: Class or number to predict; None where some part has none.
    """

    parts: dict[str, Samples]
    kind: Array
    group: Array
    copy: Array
    blank: Array
    label: Array | None

    def name(self, row: int) -> Any:
        """The file or the place of a sample."""
        part = list(self.parts.values())[self.kind[row]]
        return named(part, row - int(np.searchsorted(self.kind, self.kind[row])))

    def pairs(self, among: Array, rows: Array) -> list[list[Any]]:
        """Copies with where they occur first: [name, name of the copy, whether their targets differ].

        Args:
            among: Samples in which originals are looked for.
            rows: Copies, whose originals are all among those.
        """
        groups, first = np.unique(self.group[among], return_index=True)
        origin = among[first[np.searchsorted(groups, self.group[rows])]]
        rows, origin = rows[rows != origin], origin[rows != origin]
        differ = np.zeros(len(rows), bool) if self.label is None else self.label[origin] != self.label[rows]
        shown = np.argsort(~differ, kind="stable")[:LISTED]  # contradictions first
        return [[self.name(int(origin[i])), self.name(int(rows[i])), bool(differ[i])] for i in shown]


def measure(look: Look) -> None:
    """Write `duplicates` of each part and `leaked`, and the pairs found first as the fact ``duplicate_pairs``.

    Whether samples are copies or alike by chance is told by looking at a random half of their features: what is alike
    by chance in all features (a table of a few categories) is alike with many more samples in half of them; a copy is
    as alone with its original as before. A sample whose entries are all the same (a blank image) is neither.
    """
    pool = _pooled(look)
    for k, split in enumerate(pool.parts):
        mine = np.flatnonzero(pool.kind == k)
        look.record.append("duplicates", split, STEP, _within(pool, mine))
        if pairs := pool.pairs(mine, mine[pool.copy[mine]]):
            look.note("duplicate_pairs", split, pairs)
    if len(pool.parts) < 2:
        return
    train, val = np.flatnonzero(pool.kind == 0), np.flatnonzero(pool.kind == 1)
    known = np.isin(pool.group[val], pool.group[train])
    twins = np.bincount(pool.group[train])[pool.group[train]] > 1
    copies = known & pool.copy[val]
    counts = [len(val), known.sum(), copies.sum(), len(train), twins.sum()]
    look.record.append("leaked", "val", STEP, np.asarray(counts, np.float64))
    if pairs := pool.pairs(train, val[copies]):
        look.note("duplicate_pairs", "leaked", pairs)


def _pooled(look: Look) -> Pool:
    parts = look.parts
    if len({part.inputs.shape[1:] for part in parts.values()}) > 1:
        parts = {"train": look.train}
    some = list(parts.values())
    _, group, often = np.unique(
        np.concatenate([hashes(part.inputs) for part in some]), return_inverse=True, return_counts=True
    )
    blank = np.concatenate([_blank(part) for part in some])
    copy = (often[group] > 1) & ~blank
    if copy.any():
        copy &= _alone_on_half(some, group, look.seed)
    labels = [target for part in some if (target := _targets(part, look.task)) is not None]
    label = np.concatenate(labels) if len(labels) == len(some) else None
    return Pool(parts, np.repeat(np.arange(len(some)), [len(part) for part in some]), group, copy, blank, label)


def hashes(inputs: Array, chosen: Array | None = None) -> Array:
    """A number for each sample, shape (n,), equal where all entries are, as single-precision numbers.

    Args:
        inputs: Samples, shape (n, *sample).
        chosen: Indices of the entries that count; None for all.
    """
    found: list[int] = []
    for part in chunks(inputs):
        x = part.reshape(len(part), -1).astype(np.float32) + np.float32(0)  # which makes -0 and 0 alike
        x[np.isnan(x)] = np.nan  # of which there are many
        x = np.ascontiguousarray(x if chosen is None else x[:, chosen])
        found += map(hash, x.view(np.dtype((np.void, x.itemsize * x.shape[1])))[:, 0].tolist())
    return np.asarray(found, np.int64)


def different(samples: Samples, rows: Array) -> Array:
    """Some rows without those that are equal to an earlier one: a copy would tell its own label."""
    return np.asarray(rows[np.sort(np.unique(hashes(samples.inputs[rows]), return_index=True)[1])])


def _alone_on_half(parts: list[Samples], group: Array, seed: int) -> Array:
    """Whether samples that are alike in a random half of the features are alike in all, in most draws, shape (n,)."""
    features = parts[0].inputs[0].size
    if features < 2:
        return np.zeros(len(group), bool)
    draw, alone = np.random.default_rng(seed), np.zeros(len(group), np.int64)
    for _ in range(DRAWS):
        chosen = np.sort(draw.choice(features, features // 2, replace=False))
        half = np.unique(np.concatenate([hashes(part.inputs, chosen) for part in parts]), return_inverse=True)[1]
        pairs = np.unique(np.stack([half, group]), axis=1)
        alone += np.bincount(pairs[0])[half] == 1
    return alone > DRAWS / 2


def _blank(samples: Samples) -> Array:
    """Samples all of whose entries are one and the same number; a single entry says nothing."""
    flat = samples.inputs.reshape(len(samples), -1)
    return np.concatenate([(x == x[:, :1]).all(1) for x in chunks(flat)]) & (flat.shape[1] > 1)


def _targets(samples: Samples, task: str | None) -> Array | None:
    labels = labels_of(samples, task)
    if labels is not None:
        return labels.astype(np.float64)
    targets = samples.targets
    return None if targets is None or targets.reshape(len(targets), -1).shape[1] != 1 else targets.reshape(-1)


def _within(pool: Pool, rows: Array) -> Array:
    """A row of `duplicates`: samples, those alike with another, copies beyond the first, contradictions, blank ones."""
    group, copy = pool.group[rows], pool.copy[rows]
    alike = np.bincount(group)[group] > 1
    again = np.ones(len(group), bool)
    again[np.unique(group, return_index=True)[1]] = False
    against = np.nan
    if pool.label is not None:
        label = pool.label[rows]
        order = np.lexsort([label, group])
        torn = (np.diff(group[order]) == 0) & (np.diff(label[order]) != 0)
        against = float((np.isin(group, group[order][1:][torn]) & copy).sum())
    counts = [len(group), alike.sum(), (again & copy).sum(), against, pool.blank[rows].sum()]
    return np.asarray(counts, np.float64)
