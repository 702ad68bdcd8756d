"""Remedies for a saddle point (TW401), with numbers of the run."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.curvature import Curvature, Escape
from trainwatch.symptoms.experiments import Shaken
from trainwatch.symptoms.gradients import SGD, learning_rate
from trainwatch.symptoms.rest import Rest

SMALL = 0.01  # of the step that is proposed: deviation of noise in each weight, and so along the direction
HEAVY = 0.9  # momentum to propose
HARMLESS = (
    "At a saddle any part along the way down grows by itself: noise of this size is too small to do harm, and has such "
    "a part in it."
)
PLAIN = "        weight.add_(torch.randn_like(weight), alpha="
TRIED = """        if weight.ndim > 1:
            usual = (weight.shape[0] / weight.numel()) ** 0.5  # 1 / sqrt(inputs of a unit)
            present = weight.norm() / weight.numel() ** 0.5
            weight.add_(torch.randn_like(weight) * present.clamp(min=usual), alpha={size})"""


def ways_off(
    record: RunRecord, found: Curvature, escape: Escape | None, copies: Shaken | None, rest: Rest
) -> Iterator[Remedy]:
    """Along the direction that was measured, by noise, and by momentum."""
    if escape is not None:
        yield remedy(
            "perturb",
            already_in_use=bool(record.facts.get("escapes")),
            length=f"{escape.length:.3g}",
            drop=f"{escape.drop:.3g} +- {escape.drop_error:.1g}",
            gained=f"{max(rest.fall, 0.0):.2g} +- {rest.error:.1g}",
            steps=rest.steps,
        )
    if copies is not None:
        came = (
            f"Copies of this run that were shaken so came to a loss of {copies.shaken:.3g} or less on held batches in "
            f"{copies.steps} steps, one that was not to {copies.still:.3g}."
        )
        size = f"{copies.size:g} times the size of the weights"
        yield remedy("add-noise", size=size, reason=came, lines=TRIED.format(size=f"{copies.size:g}"))
    if escape is None:
        return
    optimizers = list(record.facts.get("optimizers", {}).values())
    plain = len(optimizers) == 1 and optimizers[0]["type"] in SGD and record.has("grad_norm")
    rate = learning_rate(record, found.step) if plain else 0.0
    growth = rate * -found.along  # of a step of plain descent
    if copies is None:
        pace = f" Plain steps make it e times as large every {1 / growth:.3g} steps." if growth > 0 else ""
        deviation = f"{SMALL * escape.length:.1g}"
        yield remedy("add-noise", size=f"deviation {deviation}", reason=HARMLESS + pace, lines=PLAIN + deviation + ")")
    if plain and growth > 0:
        present = max(float(group.get("momentum") or 0.0) for group in optimizers[0]["groups"])
        heavy = _growth(growth, HEAVY)
        reason = (
            f"The way down grows by {math.expm1(_growth(growth, present)):.2g} of itself a step, with momentum of "
            f"{HEAVY} by {math.expm1(heavy):.2g}: it would take {1 / heavy:.3g} steps to become e times as large."
        )
        yield remedy("momentum", already_in_use=present >= HEAVY, present=f"{present:g}", proposed=HEAVY,
                     optimizer=optimizers[0]["type"], reason=reason)  # fmt: skip


def _growth(share: float, momentum: float) -> float:
    """Logarithm of the factor by which heavy-ball descent stretches a direction that plain descent adds a share to.

    The larger root z of z^2 - (1 + share + momentum) z + momentum.
    """
    middle = (1 + share + momentum) / 2
    return math.log(middle + math.sqrt(middle**2 - momentum))
