"""Whether held validation samples can be told from held training samples by their inputs alone (§10)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainwatch.probes.bench import Bench
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.predictors import Array, features_a_split, scaled
from trainwatch.probes.tables import same_width, table_of

KIND = "shift"
QUANTITIES = ("held_shift", "shift_features", "shift_aligned")
AT_END = True
MOST_ROWS = 512  # of training, and as many of validation
FEWEST = 30
TREES = 60
LEAF = 5  # samples: leaves of one sample know it by heart
NEIGHBOUR = 5  # the first few may be the same sample in another variant
LISTED = 3
TOLD = 0.55  # area under the ROC curve, from which on it is worth to ask whether features were moved or scaled alone
BLUR = 0.3  # deviations: features of few values are told by where these come to lie, whatever the samples
FLOOR = 0.1  # of the median deviation: features that hardly ever vary are not blown up


def measure(bench: Bench) -> None:
    """Let trees that have not seen a sample vote on which kind it is, and look how far its neighbours are.

    A row of `held_shift`, key ``train`` or ``val``, has three numbers for each sample, shape (MOST_ROWS, 3), absent for
    those that are not there: its target (rows of zeros and ones are numbered), the share of votes for validation, its
    distance to the fifth nearest other training sample, in features of deviation 1. A row of `shift_features`
    (LISTED, 4) names the features that the forest tells the kinds apart by: index, share of the decrease in impurity,
    mean in training, in validation. `shift_aligned`, shape (MOST_ROWS,), has the votes once each feature of both kinds
    has the same mean and deviation; it is asked where they can be told apart.
    """
    train, val = (table_of(bench, kind, MOST_ROWS, patterns=True) for kind in ("train", "val"))
    same_width(train.x, val.x)
    if min(len(train), len(val)) < FEWEST:
        raise CannotIsolate(f"fewer than {FEWEST} different samples of training and of validation are held")
    votes, weights = kind_votes(train.x, val.x)
    distances = neighbour_distances(train.x, val.x)
    for kind, table, some, far in zip(("train", "val"), (train, val), votes, distances, strict=True):
        row = np.full((MOST_ROWS, 3), np.nan)
        row[: len(table)] = np.stack([table.y.astype(np.float64), some, far], 1)
        bench.record.append("held_shift", kind, bench.step, row)
    bench.record.append("shift_features", "inputs", bench.step, listed_features(train.x, val.x, weights))
    for kind, some in zip(("train", "val"), aligned_votes(train.x, val.x, votes), strict=False):
        column = np.full(MOST_ROWS, np.nan)
        column[: len(some)] = some
        bench.record.append("shift_aligned", kind, bench.step, column)


def kind_votes(train: Array, val: Array) -> tuple[list[Array], Array]:
    """Share of votes for validation, of each sample of both kinds, and the weight of each feature.

    Args:
        train: Features, shape (n, features).
        val: The same of validation.
    """
    from sklearn.ensemble import ExtraTreesClassifier  # not before it is needed: it takes a second to load

    kind = np.repeat([0, 1], [len(train), len(val)])
    # Without weights: they would keep the rarer kind in every draw, and AUC does not need them.
    forest = ExtraTreesClassifier(
        TREES,
        min_samples_leaf=LEAF,
        max_features=features_a_split(train),
        bootstrap=True,
        oob_score=True,
        random_state=0,
    )
    forest.fit(np.concatenate([train, val]), kind)
    votes = np.nan_to_num(forest.oob_decision_function_[:, 1], nan=0.5)
    return [votes[kind == 0], votes[kind == 1]], np.asarray(forest.feature_importances_)


def neighbour_distances(train: Array, val: Array) -> list[Array]:
    """Of each sample of both kinds to its fifth nearest training sample, itself not counted."""
    from sklearn.neighbors import NearestNeighbors

    x, (others,) = scaled(train, [val])
    nearest = NearestNeighbors(n_neighbors=NEIGHBOUR).fit(x)
    return [np.asarray(nearest.kneighbors(table)[0][:, -1]) for table in (None, others)]


def listed_features(train: Array, val: Array, weights: Array) -> Array:
    """The row of `shift_features`, of tables of shape (n, features) and the weight of each feature."""
    rows = np.full((LISTED, 4), np.nan)
    first = np.argsort(-weights, kind="stable")[:LISTED]
    rows[: len(first)] = np.stack([first, weights[first], train[:, first].mean(0), val[:, first].mean(0)], 1)
    return rows


def aligned_votes(train: Array, val: Array, votes: Sequence[Array]) -> list[Array]:
    """As the votes of `kind_votes`, of features that have the same mean and deviation in both kinds.

    What can be told no more was set apart in preparing the inputs, feature by feature. Nothing where the votes, on the
    features as they are, tell nothing.
    """
    from sklearn.metrics import roc_auc_score

    kind = np.repeat([0, 1], [len(train), len(val)])
    if roc_auc_score(kind, np.concatenate(votes)) < TOLD:
        return []
    return kind_votes(*(_aligned(x, seed) for seed, x in enumerate((train, val))))[0]


def _aligned(x: Array, seed: int) -> Array:
    deviation = x.std(0)
    unit = np.maximum(deviation, max(FLOOR * float(np.median(deviation)), 1e-12))
    noise = np.random.default_rng(seed).standard_normal(x.shape)
    return np.asarray((x - x.mean(0)) / unit + BLUR * noise)
