"""Whether validation samples can be told from training samples by their inputs."""

from __future__ import annotations

import numpy as np

from trainwatch.auditing.measures.duplicates import different
from trainwatch.auditing.measures.look import STEP, Array, Cannot, Look, labels_of, table
from trainwatch.auditing.samples import Samples
from trainwatch.probes.shift import FEWEST, aligned_votes, kind_votes, listed_features, neighbour_distances

QUANTITIES = ("held_shift", "shift_features", "shift_aligned")
MOST_ROWS = 2048  # of each part


def measure(look: Look) -> None:
    """Write `held_shift`, `shift_features` and `shift_aligned` as the probe of the same name does, of more samples."""
    parts = dict(zip(("train", "val"), look.both(), strict=True))
    rows = {kind: different(part, look.some(len(part), MOST_ROWS)) for kind, part in parts.items()}
    if min(map(len, rows.values())) < FEWEST:
        raise Cannot(f"fewer than {FEWEST} different samples of training or of validation")
    train, val = (table(part, rows[kind]) for kind, part in parts.items())
    votes, weights = kind_votes(train, val)
    far = neighbour_distances(train, val)
    for kind, some, distance in zip(parts, votes, far, strict=True):
        y = _target(parts[kind], look.task)[rows[kind]]
        look.record.append("held_shift", kind, STEP, np.stack([y, some, distance], 1))
    look.record.append("shift_features", "inputs", STEP, listed_features(train, val, weights))
    for kind, some in zip(parts, aligned_votes(train, val, votes), strict=False):
        look.record.append("shift_aligned", kind, STEP, some)


def _target(samples: Samples, task: str | None) -> Array:
    """Classes, within which samples are compared; 0 for all where there are none."""
    labels = labels_of(samples, task)
    return np.zeros(len(samples)) if labels is None else labels.astype(np.float64)
