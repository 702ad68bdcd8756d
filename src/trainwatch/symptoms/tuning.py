"""What a fine-tuning trains, what it starts from, and how much of what it changed is needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array


@dataclass(frozen=True)
class Extent:
    """How much of a model is trained, and on how much data.

    Attributes:
        trained: Numbers in parameters that require gradients and are in an optimiser at the start.
        total: All of them.
        frozen: Modules of which nothing is trained.
        tied: Names of each parameter that has several.
        samples: Training samples; 0 where that is not known.
    """

    trained: int
    total: int
    frozen: tuple[str, ...] = field(repr=False)
    tied: tuple[tuple[str, ...], ...] = field(repr=False)
    samples: int

    @property
    def share(self) -> float:
        return self.trained / self.total if self.total else 0.0


@dataclass(frozen=True)
class Compared:
    """The validation loss of copies of which a part stayed, or is again, as it was at the start.

    Attributes:
        much: What is kept or frozen, one number a row; in the first row all is trained.
        losses: Of the held validation batches.
        errors: Standard errors of the differences from the first.
        step: Optimiser steps taken.
    """

    much: Array
    losses: Array
    errors: Array
    step: int

    def limits(self, errors: float, alike: float, slack: float) -> Array:
        """The losses up to which each row counts as no worse than the first.

        Args:
            errors: Standard errors of the difference.
            alike: Share of the first loss that makes no difference, however sure it is.
            slack: Share of the first loss that makes one, however unsure it is.
        """
        first = self.losses[0]
        return np.asarray(first + np.clip(errors * self.errors, alike * abs(first), slack * abs(first)))


@dataclass(frozen=True)
class UpdateRank:
    """Of what training added to one weight.

    Attributes:
        parameter: Its facts.
        above_noise: Directions above the noise edge.
        kept: Directions that keep 90, 95 and 99 % of the energy.
        whole: All directions.
    """

    parameter: dict[str, Any] = field(repr=False)
    above_noise: int
    kept: tuple[int, ...]
    whole: int


def extent_of(record: RunRecord) -> Extent:
    """For `RunRecord.memo`."""
    parameters = record.facts.get("parameters", ())
    held = {i for o in record.facts.get("optimizers", {}).values() for i in o["parameters"]}
    trained = [i in held and bool(p.get("trainable", True)) for i, p in enumerate(parameters)]
    owners = {p.get("module", "") for p, yes in zip(parameters, trained, strict=True) if yes}
    run = record.facts.get("run", {})
    return Extent(
        sum(p["numel"] for p, yes in zip(parameters, trained, strict=True) if yes),
        sum(p["numel"] for p in parameters),
        tuple(dict.fromkeys(m for p in parameters if (m := p.get("module", "")) not in owners)),
        tuple((p["name"], *p["tied"]) for p in parameters if p.get("tied")),
        int(run.get("train_samples") or 0) or _samples_an_epoch(run),
    )


def trained_before(record: RunRecord) -> bool | None:
    """Whether the run began with weights that carry training; None where that cannot be told."""
    known = record.facts.get("start_weights")
    return None if known is None or not known["judged"] else 2 * known["trained"] > known["judged"]


def compared(record: RunRecord, quantity: str) -> Compared | None:
    """The last look of a kind; None where there is none, or the first row has no finite loss."""
    row = record.latest(quantity, "held")
    if row is None or len(row[1]) < 2 or not np.isfinite(row[1][0]).all():
        return None
    much, losses, errors = np.nan_to_num(row[1].astype(float), nan=np.inf).T
    return Compared(much, losses, errors, row[0])


def update_ranks(record: RunRecord) -> list[UpdateRank]:
    """Of all weights that were looked at, for `RunRecord.memo`."""
    row = record.latest("update_rank", "end")
    if row is None:
        return []
    pairs = zip(record.facts.get("parameters", ()), row[1], strict=False)
    return [UpdateRank(p, int(r[0]), tuple(map(int, r[1:-1])), int(r[-1])) for p, r in pairs if np.isfinite(r).all()]


def _samples_an_epoch(run: dict[str, Any]) -> int:
    """Where no loader was seen: samples over passes over the validation data, one of which ends an epoch as a rule."""
    return round(run.get("samples", 0) / run["epochs"]) if run.get("epochs") else 0
