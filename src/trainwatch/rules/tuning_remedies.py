"""What TW801 advises: which modules to freeze, at which ranks to update, which share to mask, what to share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.tuning import compared, extent_of, update_ranks

KEPT = ("above the noise edge", "that keep 90 % of the energy", "that keep 95 %", "that keep 99 %")
SHOWN = 4
Allowed = tuple[float, float, float]  # what `Compared.limits` takes


@dataclass(frozen=True)
class Spared:
    """The modules that need not be trained.

    Attributes:
        modules: Their names, in order of execution.
        of: Modules that are trained.
        freed: Their share of the numbers that are trained.
        before, loss: Validation loss of a copy that learned with nothing frozen, and with them frozen.
        best: Of the run itself, at its best pass; minus infinity where it is not of the same criterion.
        error: Standard error of the difference.
        most: The loss up to which it counts as no worse.
        step: Optimiser steps taken.
    """

    modules: tuple[str, ...] = field(repr=False)
    of: int
    freed: float
    before: float
    loss: float
    best: float
    error: float
    most: float
    step: int


def spared_by(record: RunRecord, allowed: Allowed) -> Spared | None:
    """As many modules as can stay frozen and the validation loss is no worse; None where that was not tried.

    It is no worse than that of a copy with nothing frozen, or than that of the run at its best.
    """
    found, order = compared(record, "learned_frozen"), record.facts.get("freezable", [])
    if found is None:
        return None
    curve = record.memo(validation_curve)
    best = float(curve.mean.min()) if curve is not None and curve.same_criterion else -np.inf
    limits = np.fmax(found.limits(*allowed), best)
    row = int(np.flatnonzero(found.losses <= limits)[-1])
    modules = tuple(order[: round(found.much[row])])
    numbers = sum(p["numel"] for p in record.facts["parameters"] if p["module"] in modules)
    return Spared(
        modules=modules,
        of=len(order),
        freed=numbers / max(1, record.memo(extent_of).trained),
        before=float(found.losses[0]),
        loss=float(found.losses[row]),
        best=best,
        error=float(found.errors[row]),
        most=float(limits[row]),
        step=found.step,
    )


def tuning_remedies(record: RunRecord, spared: Spared, allowed: Allowed) -> Iterator[Remedy]:
    """Those that this run has numbers for."""
    optimizers = record.facts.get("optimizers", {}).values()
    kind, rate = next(((o["type"], o["groups"][0].get("lr")) for o in optimizers if o["groups"]), ("Adam", None))
    yield remedy("freeze-layers", modules=list(spared.modules), count=len(spared.modules), freed=spared.freed,
                 loss=spared.loss, before=spared.before, optimizer=kind, rate=f"{rate or 1e-3:.3g}")  # fmt: skip
    if (low := _low_rank(record, allowed)) is not None:
        yield remedy("low-rank-update", **low)
    if (mask := _mask(record, allowed)) is not None:
        yield remedy("subnetwork-mask", **mask)
    tied = record.memo(extent_of).tied
    if tied or _could_be_tied(record) is not None:
        first, second = tied[0][:2] if tied else _could_be_tied(record) or ("", "")
        yield remedy("share-weights", already_in_use=bool(tied), first=first, second=second, owner=_owner(first),
                     other=_owner(second))  # fmt: skip


def _low_rank(record: RunRecord, allowed: Allowed) -> dict[str, Any] | None:
    """The fewest directions of each update with which the validation loss is no worse."""
    found, ranks = compared(record, "kept_directions"), record.memo(update_ranks)
    if found is None or not ranks:
        return None
    well = [i for i in np.flatnonzero(found.losses <= found.limits(*allowed)) if i and found.much[i] < 1]
    if not well:
        return None
    row = min(well, key=lambda i: found.much[i])
    of = {
        r.parameter["module"]: (r.above_noise, *r.kept)[row - 1]
        for r in ranks
        if r.parameter["name"].endswith("weight")
    }
    of = {module: rank for module, rank in of.items() if rank}
    if not of:
        return None
    widest = sorted(ranks, key=lambda r: -r.parameter["numel"])[:SHOWN]
    told = "; ".join(
        f"'{r.parameter['module']}' {r.above_noise} of {r.whole} above the noise edge, "
        f"{'/'.join(map(str, r.kept))} keep 90/95/99 % of its energy"
        for r in widest
    )
    return {"ranks": of, "kept": KEPT[row - 1], "share": found.much[row], "told": told, "loss": found.losses[row],
            "before": found.losses[0]}  # fmt: skip


def _mask(record: RunRecord, allowed: Allowed) -> dict[str, Any] | None:
    """The smallest share of entries whose change has to be kept."""
    found = compared(record, "kept_entries")
    well = [] if found is None else [i for i in np.flatnonzero(found.losses <= found.limits(*allowed)) if i]
    if found is None or not well:
        return None
    row = min(well, key=lambda i: found.much[i])
    return {"share": float(found.much[row]), "loss": found.losses[row], "before": found.losses[0]}


def _could_be_tied(record: RunRecord) -> tuple[str, str] | None:
    """An embedding, and the weight of a layer of the same shape."""
    parameters = record.facts.get("parameters", ())
    layers = {tuple(p["shape"]): p["name"] for p in parameters if p["kind"] == "weight"}
    tables = (p for p in parameters if p["kind"] == "embedding" and tuple(p["shape"]) in layers)
    return next(((p["name"], layers[tuple(p["shape"])]) for p in tables), None)


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
