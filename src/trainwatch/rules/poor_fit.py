"""Where the losses of a run that has ended came to rest, as TW204 and TW206 read it."""

from __future__ import annotations

from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked
from trainwatch.symptoms.rest import Rest, rest_of


def rest(record: RunRecord) -> Rest:
    """Where they came to rest, with at least one of them against the loss of a constant guess.

    Raises:
        NotChecked: The run has not ended, or the record does not tell.
    """
    if not record.facts.get("run", {}).get("finished"):
        raise NotChecked("the run has not ended")
    if len(record.facts.get("optimizers", {})) > 1:
        raise NotChecked("several optimisers: their losses have no common course")
    found = record.memo(rest_of)
    if found is None or not found.trends:
        raise NotChecked("too few steps, or a loss of which it is not known what a constant guess costs")
    return found
