"""Predictors that learn from a small table: nearest neighbours, gradient boosting, forests, and a constant guess."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

NEIGHBOURS = 5
TREES = 100  # over all classes
FOREST = 50  # trees
FEWEST_IN_LEAF = 5
UNSURE = 0.1  # share of every probability that is spread evenly: few samples make predictors too sure of themselves
PROJECTED = 256  # features

Array = NDArray[Any]
GUESS = "constant"


def scaled(x: Array, others: Sequence[Array]) -> tuple[Array, list[Array]]:
    """Features of mean 0 and deviation 1; of very many, a fixed random projection, which keeps distances.

    Args:
        x: Training features, shape (n, features), which tell mean and deviation.
        others: Further tables of the same features.
    """
    mean, deviation = x.mean(0), x.std(0)
    deviation = np.where(deviation > 1e-6 * np.abs(mean), deviation, np.inf)  # constant ones tell nothing
    tables = [np.nan_to_num((table - mean) / deviation) for table in (x, *others)]
    if x.shape[1] > PROJECTED:
        turn = np.random.default_rng(0).standard_normal((x.shape[1], PROJECTED)) / PROJECTED**0.5
        tables = [table @ turn for table in tables]
    return tables[0], tables[1:]


def regressions(x: Array, y: Array, others: Sequence[Array]) -> Iterator[tuple[str, list[Array]]]:
    """Each reference and the numbers, shape (n,), that it predicts of further tables."""
    from sklearn import ensemble, neighbors  # not before they are needed: they take a second to load

    yield GUESS, [np.full(len(table), y.mean()) for table in others]
    nearest = neighbors.KNeighborsRegressor(NEIGHBOURS, weights="distance")
    options = {"max_iter": TREES, "min_samples_leaf": FEWEST_IN_LEAF, "random_state": 0}
    boosting = ensemble.HistGradientBoostingRegressor(**options)
    for name, kind in (("neighbours", nearest), ("boosting", boosting)):
        with threadpool_limits(1, "openmp"):  # beside a busy training, threads that wait for each other take minutes
            kind.fit(x, y)
            answers = [kind.predict(table) for table in others]
        yield name, answers


def classifications(x: Array, y: Array, others: Sequence[Array], width: int) -> Iterator[tuple[str, list[Array]]]:
    """Each reference and the probabilities, shape (n, width), that it predicts of further tables.

    Args:
        x: Features to learn from, shape (n, features).
        y: Their classes, whole numbers below `width`, two different ones or more.
        others: Tables to predict.
        width: Classes that there are.
    """
    from sklearn import ensemble, neighbors

    classes, counts = np.unique(y, return_counts=True)

    def full(known: Array) -> Array:
        spread = np.full((len(known), width), UNSURE / width)
        spread[:, classes] += (1 - UNSURE) * known
        return spread

    yield GUESS, [full(np.tile(counts / len(y), (len(table), 1))) for table in others]
    trees = max(10, TREES // (len(classes) if len(classes) > 2 else 1))
    options = {"max_iter": trees, "min_samples_leaf": FEWEST_IN_LEAF, "random_state": 0}
    nearest = neighbors.KNeighborsClassifier(NEIGHBOURS, weights="distance")
    boosting = ensemble.HistGradientBoostingClassifier(**options)
    for name, kind in (("neighbours", nearest), ("boosting", boosting)):
        with threadpool_limits(1, "openmp"):
            kind.fit(x, y)
            answers = [full(kind.predict_proba(table)) for table in others]
        yield name, answers


def features_a_split(x: Array) -> int:
    """How many features, drawn at random, a tree looks at before it splits: more would only cost more."""
    return max(1, int(min(x.shape[1], PROJECTED) ** 0.5))


def forest(x: Array, y: Array, others: Sequence[Array], width: int | None) -> list[Array]:
    """What extremely randomised trees predict of further tables.

    Args:
        x: Features to learn from, shape (n, features).
        y: Numbers, or classes below `width`.
        others: Tables to predict.
        width: Classes that there are; None where numbers are predicted.

    Returns:
        For each table the numbers, shape (n,), or the probabilities, shape (n, width).
    """
    from sklearn import ensemble

    rows, ends = np.concatenate(others), np.cumsum([len(table) for table in others])[:-1]  # a call costs more than rows
    if width is None:
        answers = ensemble.ExtraTreesRegressor(FOREST, random_state=0).fit(x, y).predict(rows)
    else:
        trees = ensemble.ExtraTreesClassifier(FOREST, max_features=features_a_split(x), random_state=0)
        trees.fit(x, y.astype(np.int64))
        answers = np.full((len(rows), width), UNSURE / width)
        answers[:, trees.classes_] += (1 - UNSURE) * trees.predict_proba(rows)
    return np.split(answers, ends)
