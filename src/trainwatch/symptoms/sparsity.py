"""How near to zero the weights are that an L1 term pulls there, and how many proximal steps would make zero (§8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainwatch.figures import Profile
from trainwatch.record import RunRecord
from trainwatch.record.series import Array

LOOKED_AT = 1024  # entries of a parameter, at most, of which `weights` tells
LATE = 0.5  # of the rows: how weights stand once the term had time to act
SHOWN = 6  # layers in the chart


@dataclass(frozen=True)
class Pulled:
    """The weights that an L1 term in the loss pulls towards zero, as they stood in the second half of the run.

    Shares are of all their entries together, estimated from those that are looked at.

    Attributes:
        names: Of the parameters of two dimensions or more.
        smallest, largest: Coefficient of the term; the same for all, unless the loop says otherwise.
        step: Optimiser step of the last row.
        zeros: Share that is exactly zero.
        near: Share within a twentieth of the root mean square, zeros included.
        crossing: Share that changes sign from one step to the next.
        looked_at: Entries that are looked at.
    """

    names: tuple[str, ...]
    smallest: float
    largest: float
    step: int
    zeros: float
    near: float
    crossing: float
    looked_at: int

    @property
    def hovering(self) -> float:
        """Share that is next to zero and not there."""
        return self.near - self.zeros

    def error(self, share: float) -> float:
        """Standard error of a share of as many entries."""
        return float(np.sqrt(max(share * (1 - share), 0.25 / self.looked_at) / self.looked_at))


def pulled(record: RunRecord) -> Pulled | None:
    """What an L1 term pulls at, for `RunRecord.memo`; None where no such term was seen, or no weight was followed."""
    term = (record.facts.get("regularisation", {}).get("penalties") or {}).get("l1") or {}
    parameters: list[dict[str, Any]] = record.facts.get("parameters", [])
    rows, sizes, names, step = [], [], [], 0
    for key, facts in record.facts.get("optimizers", {}).items() if term else ():
        series = record.series("weights", key)
        if series is None or not len(series):
            continue
        table = series.values[int(LATE * len(series)) :].astype(float)
        for column, place in enumerate(facts["parameters"]):
            p = parameters[place]
            if term.get(p["name"], 0.0) > 0 and len(p["shape"]) > 1 and np.isfinite(table[-1, column, :3]).all():
                rows.append(_mean(table[:, column, 3:]))
                sizes.append(int(p["numel"]))
                names.append(str(p["name"]))
                step = max(step, series.last_step)
    if not rows or np.isnan(shares := np.average(rows, axis=0, weights=sizes)).any():
        return None
    amounts, (zeros, near, crossing) = [float(term[name]) for name in names], shares.tolist()
    looked_at = sum(min(LOOKED_AT, size) for size in sizes)
    return Pulled(tuple(names), min(amounts), max(amounts), step, zeros, near, crossing, looked_at)


def _mean(rows: Array) -> Array:
    """Mean of each column over the rows in which it was measured; NaN where it never was."""
    known = ~np.isnan(rows)
    return np.asarray(np.where(known, rows, 0.0).sum(0) / np.where(known.any(0), known.sum(0), np.nan))


@dataclass(frozen=True)
class Planned:
    """Where proximal steps led a copy under one coefficient.

    Attributes:
        l1: The largest coefficient.
        zeros: Share of exact zeros among the penalised weights.
        kept: Share of those that would stay, NaN without any.
        steps: Taken under this coefficient.
        training, validation: Losses in evaluation mode, without the term; NaN where none was measured.
        worsened, error: Change of the validation loss from the end of the run, and its standard error.
        layers: Name of each penalised parameter -> its share of zeros.
    """

    l1: float
    zeros: float
    kept: float
    steps: int
    training: float
    validation: float
    worsened: float
    error: float
    layers: dict[str, float]


def plan(record: RunRecord) -> list[Planned]:
    """The planner's lines by rising coefficient, the first that of the run, for `RunRecord.memo`; none if not run."""
    path, layers = record.latest("sparsity_path", "held"), record.latest("sparsity_layers", "held")
    if path is None or layers is None:
        return []
    names = [str(p["name"]) for p in record.facts.get("parameters", ())]
    start, *lines = path[1]
    found = []
    for line, shares in zip(lines, layers[1][1:], strict=True):
        if np.isnan(line[0]):
            break
        _, l1, zeros, kept, steps, training, _, validation, error = line.tolist()
        of_layer = {name: float(share) for name, share in zip(names, shares, strict=True) if not np.isnan(share)}
        change = validation - float(start[7])
        found.append(Planned(l1, zeros, kept, int(steps), training, validation, change, error, of_layer))
    return found


def sparsity_figure(record: RunRecord) -> Profile | None:
    """The share of exact zeros over the coefficient, of all weights and of the largest layers; None if not planned."""
    lines = record.memo(plan)
    if not lines:
        return None
    sizes = {str(p["name"]): int(p["numel"]) for p in record.facts["parameters"]}
    layers = sorted(lines[0].layers, key=lambda name: -sizes[name])[:SHOWN]
    shares = {"all": [(p.l1, p.zeros, 0.0) for p in lines]}
    if len(lines[0].layers) > 1:
        shares |= {name: [(p.l1, p.layers[name], 0.0) for p in lines] for name in layers}
    return Profile(
        title="Weights that proximal steps make exactly zero",
        x_label="coefficient of the L1 penalty",
        y_label="share of exact zeros",
        lines={name: tuple(points) for name, points in shares.items()},
        marks={lines[0].l1: "of this run"},
    )
