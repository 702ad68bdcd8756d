"""TW502: an L2 penalty goes through the preconditioner of an adaptive optimiser, and decays layers unequally."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Rule
from trainwatch.symptoms.coupled_decay import CoupledDecay, coupled_decays
from trainwatch.symptoms.gradients import gradients_of, learning_rate


@dataclass(frozen=True)
class L2ThroughAdaptiveOptimiser(Rule):
    """Weight decay is added to the gradient, which Adam divides by its size: each layer is decayed otherwise.

    ## Symptom
    An adaptive optimiser has weight decay that is not decoupled, or the loss has a term of squared weights. What this
    comes down to differs between layers by a factor of `spread` or more, and is strong enough somewhere to shrink
    weights by a share of `felt` over the run. This is a remark.

    ## Why it hurts
    Under plain gradient steps a penalty shrinks every weight by the same share of itself. An adaptive optimiser divides
    it by the root mean square of each weight's gradient: where gradients are large the penalty hardly acts, where they
    are small it may be all that acts. Its coefficient cannot be set for one without spoiling the other, and has to be
    tuned anew with the learning rate. Whether that costs anything here is not said; TW206 tells by experiment.

    ## How it is measured
    The decoupled decay that would shrink a weight as much: the coefficient over the root mean square gradient of its
    layer, penalty included, in the second half of the run (`grad_norm`, `weights`, which hold tensors as a whole:
    within a layer it differs as well). Times the learning rates it is the share lost over the run.

    ## Remedies
    `decoupled-weight-decay`.

    ## Not a fault when
    The run is as good as it needs to be: many good models were trained so. Decoupled decay (AdamW, or
    `decoupled_weight_decay=True`) is what is advised.

    ## Sources
    §16; Loshchilov and Hutter, "Decoupled weight decay regularization" (2019).
    """

    code: ClassVar[str] = "TW502"
    name: ClassVar[str] = "l2-through-adaptive-optimiser"
    severity: ClassVar[Severity] = Severity.INFO
    section: ClassVar[str] = "§16"
    needs: ClassVar[tuple[str, ...]] = ("grad_norm", "weights")

    spread: float = 4.0
    felt: float = 0.05

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare what the penalty comes down to in each layer."""
        found = record.memo(coupled_decays)
        if found is None:
            raise NotChecked("several optimisers share the model, or its gradients were not measured")
        ordered = sorted(found, key=lambda decay: decay.effective)
        if len(ordered) < 2 or (factor := ordered[-1].effective / ordered[0].effective) < self.spread:
            return
        least, most, middle = ordered[0], ordered[-1], ordered[len(ordered) // 2]
        if most.pull < -np.log1p(-self.felt):
            return
        gradients = record.memo(gradients_of)
        assert gradients is not None
        kind = gradients.optimizer["type"]
        yield self.diagnose(
            f"an L2 penalty of {middle.coefficient:.3g} goes through {kind}: it acts like decoupled weight decay of "
            f"{least.effective:.2g} on '{least.module}' and of {most.effective:.2g} on '{most.module}'",
            margin=float(np.log(factor / self.spread)),
            where=(most.name, least.name),
            evidence=(
                Evidence("factor between the layers decayed most and least", factor, self.spread, step=record.steps),
                _shown(most),
                _shown(least),
            ),
            remedies=(
                remedy(
                    "decoupled-weight-decay",
                    proposed=middle.effective,
                    present=middle.coefficient,
                    least=least.effective,
                    most=most.effective,
                    rate=learning_rate(record, 0),
                ),
            ),
        )


def _shown(decay: CoupledDecay) -> Evidence:
    lost = f"over the run alone it would take {-np.expm1(-decay.pull):.0%} of the weights"
    note = f"root mean square gradient {decay.gradient:.2g}; {lost}"
    return Evidence("decoupled weight decay that does the same", decay.effective, where=decay.name, note=note)
