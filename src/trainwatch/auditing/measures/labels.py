"""What a forest that has not seen a sample's label says of it."""

from __future__ import annotations

import numpy as np

from trainwatch.auditing.measures.duplicates import different, hashes
from trainwatch.auditing.measures.features import named
from trainwatch.auditing.measures.look import STEP, Array, Cannot, Look, labels_of, table
from trainwatch.probes.labels import FEWEST, forest_votes
from trainwatch.symptoms.labels import label_noise

QUANTITIES = ("held_labels",)
MOST_ROWS = {"train": 10_000, "val": 5000}
MOST_CLASSES = 256
UNKNOWN = -1  # in place of an optimiser step


def measure(look: Look) -> None:
    """Write `held_labels` as the probe of the same name does, of more samples, and the fact ``suspects``."""
    parts = look.parts
    if look.val is not None and look.val.inputs.shape[1:] != look.train.inputs.shape[1:]:
        parts = {"train": look.train}
    chosen: dict[str, tuple[Array, Array]] = {}
    for split, part in parts.items():
        labels = labels_of(part, look.task)
        if labels is None:
            if split == "train":
                raise Cannot("there is not one class for each sample")
            continue
        given = np.flatnonzero(labels >= 0)
        rows = different(part, given[look.some(len(given), MOST_ROWS[split])])
        if "train" in chosen:
            rows = rows[~np.isin(hashes(part.inputs[rows]), hashes(look.train.inputs[chosen["train"][0]]))]
        if len(rows) or split == "train":
            chosen[split] = rows, labels
    x = np.concatenate([table(parts[split], rows) for split, (rows, _) in chosen.items()])
    y = np.concatenate([labels[rows] for rows, labels in chosen.values()])
    if len(chosen["train"][0]) < FEWEST or not 1 < len(np.unique(y)) <= MOST_CLASSES:
        raise Cannot(f"it takes {FEWEST} different training samples of 2 to {MOST_CLASSES} classes")
    classes, votes = forest_votes(x, y)
    begin = 0
    for split, (rows, labels) in chosen.items():
        share, mine = votes[begin : begin + len(rows)], labels[rows]
        begin += len(rows)
        own = share[np.arange(len(rows)), np.searchsorted(classes, mine)]
        steps = np.full(len(rows), UNKNOWN)
        columns = [steps, parts[split].places[rows], mine, classes[share.argmax(1)], share.max(1), own]
        look.record.append("held_labels", split, STEP, np.stack(columns, 1))
        look.note("looked_at", split, {"labels": len(rows), "of": len(parts[split])})
    for noise in look.record.memo(label_noise):
        part = parts[noise.kind]
        rows = np.searchsorted(part.places, [s.place for s in noise.suspects])
        look.note("suspects", noise.kind, [
            [named(part, int(row)), s.given, s.predicted, s.votes] for row, s in zip(rows, noise.suspects, strict=True)
        ])  # fmt: skip
        if part.files:
            places = part.places[rows].tolist()
            look.note("files", noise.kind, {str(p): part.files[row] for p, row in zip(places, rows, strict=True)})
