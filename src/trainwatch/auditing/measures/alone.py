"""How well each feature predicts the target all by itself."""

from __future__ import annotations

import numpy as np

from trainwatch.auditing.measures.look import STEP, Array, Cannot, Look, labels_of, table

QUANTITIES = ("feature_alone",)
MOST_ROWS = 2048
MOST_FEATURES = 32  # the most telling ones by an F test, which takes no time
FEWEST = 60


def measure(look: Look) -> None:
    """Write `feature_alone`: shape (features, 2), of rows alone.

    Skill of a small tree that sees one feature, fitted to one half of the samples and scored on the other, 0 for
    always naming the most frequent class, 1 without an error. Regression: the rank correlation's absolute value. And
    whether the feature is the target under another name: as many different values as classes, or on one line with it.
    """
    part = look.train
    labels = labels_of(part, look.task)
    if part.layout != "rows":
        raise Cannot("the inputs are not rows of features")
    if labels is None and (look.task != "regression" or part.targets is None or part.targets.size != len(part)):
        raise Cannot("there is not one target for each sample")
    known = np.flatnonzero(labels >= 0) if labels is not None else np.flatnonzero(np.isfinite(_numbers(part.targets)))
    rows = known[look.some(len(known), MOST_ROWS)]
    if len(rows) < FEWEST:
        raise Cannot(f"fewer than {FEWEST} training samples with a target")
    x, y = table(part, rows), (labels if labels is not None else _numbers(part.targets))[rows]
    if len(np.unique(y)) < 2:
        raise Cannot("all targets are the same")
    found = np.full((part.inputs[0].size, 2), np.nan)
    if x.shape[1] == len(found):
        for j in _telling(x, y, labels is not None):
            found[j] = _as_classes(x[:, [j]], y) if labels is not None else _as_numbers(x[:, j], y)
        look.record.append("feature_alone", "train", STEP, found)


def _numbers(targets: Array | None) -> Array:
    return np.asarray(targets, np.float64).reshape(-1)


def _telling(x: Array, y: Array, classes: bool) -> Array:
    from sklearn.feature_selection import f_classif, f_regression

    varies = np.flatnonzero(x.std(0) > 0)
    if len(varies) <= MOST_FEATURES:
        return varies
    with np.errstate(all="ignore"):
        scores = (f_classif if classes else f_regression)(x[:, varies], y)[0]
    # Without spread within the classes a feature has an infinite score or none.
    order = np.argsort(-np.nan_to_num(scores, nan=np.inf, posinf=np.inf), kind="stable")
    return np.asarray(varies[np.sort(order[:MOST_FEATURES])])


def _as_classes(x: Array, y: Array) -> tuple[float, float]:
    from sklearn.tree import DecisionTreeClassifier

    classes, counts = np.unique(y, return_counts=True)
    half = np.random.default_rng(0).permutation(len(y)) % 2
    right = 0
    for k in (0, 1):
        tree = DecisionTreeClassifier(max_leaf_nodes=max(2, 2 * len(classes)), random_state=0)
        right += int((tree.fit(x[half == k], y[half == k]).predict(x[half != k]) == y[half != k]).sum())
    usual = counts.max()
    skill = max(0.0, (right - usual) / (len(y) - usual))
    values, which = np.unique(x[:, 0], return_inverse=True)
    same = len(values) == len(classes) == len(np.unique(np.stack([which, y]), axis=1).T)
    return skill, float(same)


def _as_numbers(x: Array, y: Array) -> tuple[float, float]:
    from scipy.stats import spearmanr

    line = abs(float(np.corrcoef(x, y)[0, 1]))
    return abs(float(spearmanr(x, y)[0])), float(line > 1 - 1e-9 or np.allclose(np.polyval(np.polyfit(x, y, 1), x), y))
