"""Samples that stand apart from all others."""

from __future__ import annotations

import numpy as np

from trainwatch.auditing.measures.features import named
from trainwatch.auditing.measures.look import STEP, Cannot, Look, table

QUANTITIES = ("outliers",)
MOST_ROWS = 8192
TREES = 50
FEWEST = 60
FAR = 6.0  # robust standard deviations of the scores
LISTED = 20


def measure(look: Look) -> None:
    """Write `outliers` of the training part: samples looked at, and those that an isolation forest puts far apart.

    Their places and scores are the fact ``outliers``. Liu, Ting and Zhou, "Isolation Forest" (2008). They are shown,
    never judged: a rare sample may be the one that matters.
    """
    from sklearn.ensemble import IsolationForest  # not before it is needed: it takes a second to load

    part = look.train
    rows = look.some(len(part), MOST_ROWS)
    if len(rows) < FEWEST:
        raise Cannot(f"fewer than {FEWEST} training samples")
    x = table(part, rows)
    forest = IsolationForest(n_estimators=TREES, random_state=look.seed, max_features=min(1.0, 64 / x.shape[1])).fit(x)
    score = -forest.score_samples(x)
    middle = np.median(score)
    far = (score - middle) / max(1.4826 * float(np.median(np.abs(score - middle))), 1e-12)
    order = np.argsort(-far, kind="stable")[:LISTED]
    order = order[far[order] > FAR]
    look.record.append("outliers", "train", STEP, np.array([len(rows), (far > FAR).sum()], float))
    look.record.set_fact("outliers", [[named(part, int(rows[i])), float(far[i])] for i in order])
