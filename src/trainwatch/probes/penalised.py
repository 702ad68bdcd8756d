"""Batches whose loss has in it what the run adds to its criterion, L1 and L2 terms, or leaves that out (§4, §8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from trainwatch.record import RunRecord

if TYPE_CHECKING:
    from trainwatch.probes.bench import Batch

POWERS = {"l1": 1, "l2": 2}

Coefficients = Mapping[str, Mapping[str, float]]  # kind -> name of a parameter -> coefficient


def coefficients(record: RunRecord) -> Coefficients:
    """Those of the terms that were seen in the loss of a run."""
    known = (record.facts.get("regularisation") or {}).get("penalties") or {}
    usable = {kind: {n: c for n, c in known.get(kind, {}).items() if np.isfinite(c) and c > 0} for kind in POWERS}
    return {kind: found for kind, found in usable.items() if found}


@dataclass(frozen=True)
class Penalised:
    """A batch that says its loss with these terms, or without them, whichever of both it computes by itself.

    Attributes:
        batch: The batch. One that is `complete` is a trainer's own step, which has them in it.
        added: The terms.
        factor: On the criterion, which the coefficients have in them; see `Bench.loss_factor`.
        present: Whether they are to be there.
    """

    batch: Batch
    added: Coefficients
    factor: float
    present: bool = True

    @property
    def samples(self) -> int:
        return self.batch.samples

    @property
    def complete(self) -> bool:
        return bool(getattr(self.batch, "complete", False))

    def predict(self, model: nn.Module) -> torch.Tensor:
        return self.batch.predict(model)

    def loss(self, model: nn.Module) -> torch.Tensor:
        return self.batch.loss(model).mean() + self.missing(model)

    def losses(self, model: nn.Module) -> torch.Tensor:
        """In the unit of the criterion: a trainer's own step may return a multiple of it."""
        return (self.batch.losses(model) + self.missing(model)) / (self.factor if self.complete else 1.0)

    def missing(self, model: nn.Module) -> torch.Tensor | float:
        """What the loss that the batch computes lacks, or has too much, in the unit of that loss."""
        if self.complete == self.present:
            return 0.0
        parameters = dict(model.named_parameters())
        sizes = [
            coefficient * parameters[name].abs().pow(POWERS[kind]).sum()
            for kind, named in self.added.items()
            for name, coefficient in named.items()
            if name in parameters
        ]
        return -sum(sizes) if self.complete else sum(sizes) / self.factor
