"""What an L2 penalty comes down to behind an adaptive optimiser, which divides it by the size of the gradient (§16)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.gradients import gradients_of, learning_rates

# Those that divide the gradient by the root of the mean of its squares, or by the largest of late.
AVERAGING = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop")
LATE = 0.5  # of the rows


@dataclass(frozen=True)
class CoupledDecay:
    """The L2 penalty on one weight.

    The gradient of a penalty is ``coefficient`` times the weight. Divided by the root of the mean squared gradient it
    shrinks the weight in a step as decoupled weight decay of ``effective`` would.

    Attributes:
        name: Of the parameter.
        module: That owns it.
        coefficient: Weight decay, and twice the factor of a term on squares in the loss.
        effective: The decoupled weight decay that does the same.
        gradient: Root mean square gradient, the penalty's included.
        pull: Effective decay times the sum of learning rates: the weight would shrink to exp(-pull) of itself.
    """

    name: str
    module: str
    coefficient: float
    effective: float
    gradient: float
    pull: float


def coupled_decays(record: RunRecord) -> list[CoupledDecay] | None:
    """The penalised weights of two dimensions or more, for `RunRecord.memo`.

    Returns:
        None where there are several optimisers, or gradients or weights were not measured; an empty list where the
        optimiser is not of this sort or nothing is penalised in its gradient.
    """
    gradients = record.memo(gradients_of)
    series = record.series("weights", gradients.key) if gradients is not None else None
    if gradients is None or series is None or not len(series):
        return None
    optimizer = gradients.optimizer
    if optimizer["type"] not in AVERAGING:
        return []
    terms = (record.facts.get("regularisation", {}).get("penalties") or {}).get("l2") or {}
    squares = (
        np.where(np.isfinite(gradients.clipped), gradients.clipped, np.nan)[int(LATE * len(gradients.steps)) :] ** 2
    )
    weights = series.values[int(LATE * len(series)) :, :, 1].astype(float)
    columns = {place: i for i, place in enumerate(optimizer["parameters"])}
    found = []
    for g, group in enumerate(optimizer["groups"]):
        decay = 0.0 if group.get("decoupled_weight_decay") else float(group.get("weight_decay") or 0.0)
        rates = float(learning_rates(record, gradients.steps, g).mean()) * record.steps
        for i in (columns[place] for place in group["parameters"]):
            p = gradients.parameters[i]
            coefficient = decay + 2 * float(terms.get(p["name"], 0.0))
            known, sizes = squares[:, i][~np.isnan(squares[:, i])], weights[:, i][np.isfinite(weights[:, i])]
            if coefficient <= 0 or len(p["shape"]) < 2 or not len(known) or not len(sizes):
                continue
            root = float(np.sqrt(known.mean() / p["numel"] + (decay * np.median(sizes)) ** 2))
            if root > 0:
                effective = coefficient / root
                name, module = str(p["name"]), str(p.get("module") or "model")
                found.append(CoupledDecay(name, module, coefficient, effective, root, effective * rates))
    return found
