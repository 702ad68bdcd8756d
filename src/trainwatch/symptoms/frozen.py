"""What became of parameters that an optimiser holds though they are frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainwatch.record import RunRecord

SAME = 1e-4  # relative: a gradient whose norm stays within this is the same one


@dataclass(frozen=True)
class FrozenParameter:
    """One parameter that requires no gradient and is held by an optimiser.

    Attributes:
        parameter: Its facts.
        group: The optimiser's group that holds it.
        since: Step at which it was first seen frozen.
        moved: The furthest that it was seen from where it was then, over its length.
        gradient: ``none``, ``zero``, ``stale`` (the same all the time) or ``given`` (one that changes).
    """

    parameter: dict[str, Any] = field(repr=False)
    group: dict[str, Any] = field(repr=False)
    since: int
    moved: float
    gradient: str

    @property
    def name(self) -> str:
        return str(self.parameter["name"])


def frozen_parameters(record: RunRecord) -> list[FrozenParameter]:
    """All of them, for `RunRecord.memo`."""
    parameters, found = record.facts.get("parameters", ()), []
    for key, held in record.facts.get("frozen_held", {}).items():
        optimizer = record.facts["optimizers"][key]
        owner = {place: group for group in optimizer["groups"] for place in group["parameters"]}
        for one in held:
            place, since = one["parameter"], one["since"]
            column = optimizer["parameters"].index(place)
            sort = _gradient(record, key, column, since) if one["gradient"] else "none"
            found.append(FrozenParameter(parameters[place], owner.get(place, {}), since, one["moved"], sort))
    return found


def _gradient(record: RunRecord, key: str, column: int, since: int) -> str:
    series = record.series("grad_norm", key)
    if series is None or not len(series):
        return "zero"
    steps, rows = series.history()
    norms = rows[steps > since, column].astype(float)
    norms = norms[~np.isnan(norms)]
    if not len(norms) or not norms.any():
        return "zero"
    return "stale" if np.ptp(norms) <= SAME * norms.max() else "given"
