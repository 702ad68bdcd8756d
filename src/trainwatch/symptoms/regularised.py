"""What regularises a run, and the effects that this is to have, each in a line (§4, §14)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.experiments import evaluated
from trainwatch.symptoms.inventory import inventory
from trainwatch.symptoms.stability import churn, small_changes
from trainwatch.symptoms.weight_growth import weight_growth

NEAR_ZERO = 4  # column of `weights`: share within a twentieth of the root mean square


def regularised(record: RunRecord) -> dict[str, list[str]]:
    """What is in use and what it brought, in words for the report.

    Returns:
        ``in_use``: kinds with their numbers. ``effects``: growth of the weights, share near zero, stability and gap, as
        far as they were measured. Empty where the model was not looked at.
    """
    if not record.facts.get("regularisation"):
        return {}
    used = [f"{kind} ({text})" if text else kind for kind, text in record.memo(inventory).items()]
    return {"in_use": used, "effects": list(_effects(record))}


def _effects(record: RunRecord) -> Iterator[str]:
    growth = record.memo(weight_growth)
    if growth is not None:
        yield f"weights {growth.factor:.3g} times as large as at the start"
    if (share := _near_zero(record)) is not None:
        yield f"{share:.1%} of the weights near zero"
    if (found := record.memo(small_changes)) is not None:
        yield f"noise of {found.size:g} of the inputs' spread moves outputs by {found.size * found.gain:.2g} of theirs"
    if (changing := record.memo(churn)) is not None:
        yield f"{changing.share:.1%} of predictions change from pass to pass"
    look = record.memo(evaluated)
    if look is not None and np.isfinite(gap := look.validation - look.training):
        error = np.hypot(look.training_error, look.validation_error)  # not known of a single batch
        sure = f" (+- {error:.1g})" if np.isfinite(error) else ""
        yield f"validation loss {abs(gap):.3g} {'above' if gap > 0 else 'below'} training loss{sure}"


def _near_zero(record: RunRecord) -> float | None:
    """Share of the entries of weights of two dimensions or more; None where they were not followed."""
    near = total = 0.0
    for key in record.keys("weights"):
        last = record.latest("weights", key)
        for i, place in enumerate(record.facts.get("optimizers", {}).get(key, {}).get("parameters", ())):
            facts = record.facts["parameters"][place]
            if last is not None and len(facts["shape"]) > 1 and np.isfinite(last[1][i, NEAR_ZERO]):
                near += facts["numel"] * float(last[1][i, NEAR_ZERO])
                total += facts["numel"]
    return near / total if total else None
