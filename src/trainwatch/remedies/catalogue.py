"""Every remedy by its stable id, gathered from one file a family. Rules fill in the numbers of the run."""

from __future__ import annotations

from trainwatch.diagnosis import Remedy
from trainwatch.remedies import (
    curvature,
    data,
    fit,
    gates,
    gradients,
    preflight,
    prior,
    regularisation,
    steps,
    tuning,
    wiring,
)
from trainwatch.remedies.entry import RemedyEntry

CATALOGUE: dict[str, RemedyEntry] = {
    entry.id: entry
    for family in (curvature, data, fit, gates, gradients, preflight, prior, regularisation, steps, tuning, wiring)
    for entry in family.ENTRIES
}


def remedy(id: str, *, already_in_use: bool = False, **numbers: object) -> Remedy:
    """A remedy of the catalogue with this run's numbers in it.

    Args:
        id: Identifier in `CATALOGUE`.
        already_in_use: The run does this already.
        numbers: One value for each field of the entry.

    Raises:
        KeyError: No such remedy, or a number is missing.
    """
    entry = CATALOGUE[id]
    return Remedy(
        id=entry.id,
        title=entry.title.format(**numbers),
        why=entry.why.format(**numbers),
        how=entry.how.format(**numbers),
        lightning=entry.lightning.format(**numbers),
        already_in_use=already_in_use,
        strength=entry.strength,
    )
