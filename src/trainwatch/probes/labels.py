"""What a forest that has not seen a held sample's label says of it (§2, §10)."""

from __future__ import annotations

import numpy as np

from trainwatch.probes.bench import Bench
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.predictors import Array, features_a_split
from trainwatch.probes.tables import classes_of, known, same_width

KIND = "labels"
QUANTITIES = ("held_labels",)
AT_END = True
MOST_ROWS = 512  # of training, and as many of validation
FEWEST = 60
TREES = 100


def measure(bench: Bench) -> None:
    """Predict the label of each held sample from all the others, of training and validation together.

    Every tree of a forest of extremely randomised trees leaves out a third of the samples; those trees alone vote on
    them (Breiman, "Out-of-bag estimation", 1996), which costs one fit instead of one a fold. Validation samples that
    are among those of training are left out.

    A row of `held_labels`, key ``train`` or ``val``, has six numbers for each sample, shape (MOST_ROWS, 6), absent for
    those that are not there: optimiser steps when it was seen, its place (see `Table`), its label, the label predicted,
    the shares of votes for that one and for its own.
    """
    tables = {"train": classes_of(bench, "train", MOST_ROWS)}
    if bench.held("val", 1):
        val = classes_of(bench, "val", MOST_ROWS)
        same_width(tables["train"].x, val.x)
        new = ~known(val.x, tables["train"].x)  # its twin would tell the label of any other
        if new.any():
            tables["val"] = val.of(np.flatnonzero(new))
    x, y = (np.concatenate(parts) for parts in zip(*((t.x, t.y) for t in tables.values()), strict=True))
    if len(tables["train"]) < FEWEST or len(np.unique(y)) < 2:
        raise CannotIsolate(f"fewer than {FEWEST} different training samples of two classes or more are held")
    classes, votes = forest_votes(x, y)
    begin = 0
    for kind, table in tables.items():
        share = votes[begin : begin + len(table)]
        begin += len(table)
        own = share[np.arange(len(table)), np.searchsorted(classes, table.y)]
        columns = [table.step, table.place, table.y, classes[share.argmax(1)], share.max(1), own]
        row = np.full((MOST_ROWS, len(columns)), np.nan)
        row[: len(table)] = np.stack(columns, 1)
        bench.record.append("held_labels", kind, bench.step, row)


def forest_votes(x: Array, y: Array) -> tuple[Array, Array]:
    """The classes, and the share of votes for each, shape (n, classes), among trees that a sample is new to.

    Args:
        x: Features, shape (n, features).
        y: Classes, shape (n,).
    """
    from sklearn.ensemble import ExtraTreesClassifier  # not before it is needed: it takes a second to load

    wide = features_a_split(x)
    # In one thread: those of scikit-learn race for the filters of warnings, and may leave the process without any.
    forest = ExtraTreesClassifier(TREES, max_features=wide, bootstrap=True, oob_score=True, random_state=0)
    forest.fit(x, y)
    return forest.classes_, np.nan_to_num(forest.oob_decision_function_)
