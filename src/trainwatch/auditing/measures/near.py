"""Samples that are almost equal: an image saved anew, a row with a little noise."""

from __future__ import annotations

import numpy as np

from trainwatch.auditing.measures.duplicates import different
from trainwatch.auditing.measures.features import named
from trainwatch.auditing.measures.look import STEP, Array, Cannot, Look, table
from trainwatch.auditing.samples import Samples
from trainwatch.probes.predictors import scaled

QUANTITIES = ("near_duplicates",)
MOST = 8192  # samples, of both parts together
NEIGHBOURS = 10
FEWEST = 50
CHANCE = 0.01  # of one pair so near among all samples looked at
LISTED = 100


def measure(look: Look) -> None:
    """Write `near_duplicates`: samples whose nearest neighbour is nearer than neighbours ever are.

    Rows are brought to deviation 1, images to mean 0 and length 1 each, so that neither unit nor brightness counts.
    Around a sample distances grow as the number of neighbours to the power of one over the dimension of the data
    (Levina and Bickel, "Maximum Likelihood Estimation of Intrinsic Dimension", 2005). The dimension comes from the
    second to the tenth neighbour; it tells how likely the first is as near as it is.
    """
    if not look.near:
        raise Cannot("near-duplicates were not asked for (near_duplicates=True)")
    parts = look.parts
    if len({part.inputs.shape[1:] for part in parts.values()}) > 1:
        parts = {"train": look.train}
    total = sum(map(len, parts.values()))
    chosen = {split: look.some(len(part), max(1, MOST * len(part) // total)) for split, part in parts.items()}
    kept = {split: different(part, rows) for (split, part), rows in zip(parts.items(), chosen.values(), strict=True)}
    if len(kept["train"]) < FEWEST:
        raise Cannot(f"fewer than {FEWEST} different training samples")
    tables = [_comparable(part, table(part, kept[split])) for split, part in parts.items()]
    first, others = scaled(tables[0], tables[1:]) if look.train.layout == "rows" else (tables[0], tables[1:])
    x = np.concatenate([first, *others]).astype(np.float32)
    split = np.repeat(np.arange(len(parts)), [len(some) for some in kept.values()])
    place = np.concatenate(list(kept.values()))
    near, to, dimension = _nearest(x)
    kinds = list(parts)
    for k, kind in enumerate(kinds):
        mine = near & (split == k)
        across = mine & (split[to] != k)
        row = [(split == k).sum(), mine.sum(), across.sum(), dimension]
        look.record.append("near_duplicates", kind, STEP, np.asarray(row, float))
        shown = [(int(i), int(to[i])) for i in np.flatnonzero(mine)[:LISTED]]
        owners = [kinds[int(split[j])] for _, j in shown]
        look.note("near_duplicate_pairs", kind, [
            [named(parts[kind], int(place[i])), owner, named(parts[owner], int(place[j]))]
            for (i, j), owner in zip(shown, owners, strict=True)
        ])  # fmt: skip


def _comparable(samples: Samples, x: Array) -> Array:
    if samples.layout == "rows":
        return x
    x = x - x.mean(1, keepdims=True)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def _nearest(x: Array) -> tuple[Array, Array, float]:
    """Which samples are near-duplicates, of which other one, and the dimension of the data."""
    from sklearn.neighbors import NearestNeighbors  # not before it is needed: it takes a second to load

    distances, to = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(x).kneighbors(x)
    # The sample itself comes first, or an equal one.
    own = to == np.arange(len(x))[:, None]
    own[~own.any(1), -1] = True
    distances, to = (some[~own].reshape(len(x), NEIGHBOURS) for some in (distances, to))
    far = np.log(np.maximum(distances[:, -1:], 1e-30) / np.maximum(distances[:, 1:-1], 1e-30))
    dimension = float((NEIGHBOURS - 3) / np.maximum(np.median(far.sum(1)), 1e-6))
    second = np.maximum(distances[:, 4], 1e-30)  # a few variants of one sample may come before it
    chance = 4 * (distances[:, 0] / second) ** dimension
    return chance < CHANCE / len(x), to[:, 0], dimension
