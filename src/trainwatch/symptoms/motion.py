"""How far the updates of a run can have moved its weights: a bound from learning rates and gradient norms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.curvature import curvature
from trainwatch.symptoms.gradients import (
    ADAPTIVE,
    SGD,
    damping,
    gradients_of,
    learning_rates,
    squared_updates,
    step_sizes,
)

WILD = 10.0  # times the median update at one and the same rate: single longer ones are cut
LEAST_GAIN = 0.3  # deviation times the root of the fan-in: weights that begin near zero soon have such a length


@dataclass(frozen=True)
class Reach:
    """The longest path that the weights can have gone, over their length at the start.

    Attributes:
        total: The sum of the lengths of all updates over the norm of all weights, small ones taken as larger.
        steps: Optimiser steps that it was summed over.
        rate: Highest learning rate of the run.
        optimizer: Type of the optimiser.
    """

    total: float
    steps: int
    rate: float
    optimizer: str


def reach_of(record: RunRecord) -> Reach | None:
    """The reach of a run; None where an update's length is not known from its gradient and rate.

    How far each update moves the weights is told by `squared_updates`. Weights that are frozen or never get a gradient
    do not count. Steps of a folded past count as their windows' means.
    """
    gradients = record.memo(gradients_of)
    if gradients is None or gradients.optimizer["type"] not in SGD + ADAPTIVE or not len(gradients.steps):
        return None
    alive = np.asarray((gradients.norms > 0).any(0))  # the rest never moves
    column = {p: i for i, p in enumerate(gradients.optimizer["parameters"])}
    weight = np.diff(gradients.steps, append=gradients.steps[-1] + 1).astype(float)  # steps that a row stands for
    moved, highest = np.zeros((2, len(gradients.steps)))
    length = 0.0
    for g, group in enumerate(gradients.optimizer["groups"]):
        facts = {p: record.facts["parameters"][p] for p in group["parameters"] if p in column}
        facts = {p: f for p, f in facts.items() if f["kind"] in ("weight", "recurrent") and len(f["shape"]) > 1}
        facts = {p: f for p, f in facts.items() if f["trainable"] and alive[column[p]]}
        rates = learning_rates(record, gradients.steps, g)
        length += sum(max(f["norm"] ** 2, LEAST_GAIN**2 * f["shape"][0]) for f in facts.values())
        highest = np.maximum(highest, rates)
        rates = step_sizes(gradients.optimizer["type"], rates, gradients.steps)
        some, numels = gradients.clipped[:, [column[p] for p in facts]], np.array([f["numel"] for f in facts.values()])
        moved += squared_updates(gradients.optimizer["type"], group, rates, some, numels)
    if not length:
        return None
    taken = highest > 0
    each = np.sqrt(moved[taken]) / highest[taken]  # a schedule may bring the rate to nothing
    each = np.minimum(each, WILD * np.median(each)) if taken.any() else each  # one row may stand for many steps
    total = float((each * highest[taken] * weight[taken]).sum() / np.sqrt(length))
    return Reach(total, int(weight.sum()), float(highest.max()), gradients.optimizer["type"])


def flow_time(record: RunRecord) -> float | None:
    """Sum of the learning rates over all steps, over 1 - momentum; None of other optimisers than plain SGD."""
    gradients = record.memo(gradients_of)
    if gradients is None or gradients.optimizer["type"] not in SGD or not len(gradients.steps):
        return None
    weight = np.diff(gradients.steps, append=gradients.steps[-1] + 1)
    return max(
        float((learning_rates(record, gradients.steps, g) * weight).sum()) / damping(group)
        for g, group in enumerate(gradients.optimizer["groups"])
    )


def escape_time(record: RunRecord) -> float | None:
    """E-folds by which the run had the time to leave a saddle that curves down as the last look had it.

    Along a direction of curvature -c gradient flow grows by exp(c t), and t is `flow_time`. None where either is not
    known.
    """
    found, flow = record.memo(curvature), record.memo(flow_time)
    return None if found is None or flow is None else -found.smallest * flow
