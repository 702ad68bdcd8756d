"""In place of the measures: what a sample's nearest neighbour is labelled, and equal samples."""

import types

import numpy as np

from trainwatch.record import RunRecord

AUDITED = ("TW106",)


def measured(parts, *, task=None, near_duplicates=False, seed=0):
    record = RunRecord()
    record.set_fact("subject", "data")
    record.set_fact("task", task)
    pairs = {}
    for part in parts:
        x = part.inputs.reshape(len(part), -1).astype(float)
        apart = (x**2).sum(1)[:, None] + (x**2).sum(1) - 2 * x @ x.T
        np.fill_diagonal(apart, np.inf)
        twins = [[_named(part, i), _named(part, j), False] for i, j in np.argwhere(apart == 0) if i < j]
        pairs |= {part.split: twins} if twins else {}
        if task in ("binary", "multiclass") and part.targets is not None:
            told = part.targets[apart.argmin(1)]
            votes = 0.98 - 0.4 * apart.min(1).argsort().argsort() / len(x)  # the nearer, the surer
            own = np.where(told == part.targets, votes, 0.05)
            row = np.stack([np.zeros(len(x)), part.places, part.targets, told, votes, own], 1)
            record.append("held_labels", part.split, 0, row)
    record.set_fact("duplicate_pairs", pairs)
    record.set_fact("near", near_duplicates)
    return record


def _named(part, row):
    return part.files[row] if part.files else int(part.places[row])


def module(**changes):
    standing_in = types.ModuleType("measures")
    standing_in.measured, standing_in.AUDITED = measured, AUDITED
    for name, value in changes.items():
        setattr(standing_in, name, value)
    return standing_in
