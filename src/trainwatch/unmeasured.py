"""What a run went without, in words, for the section on overhead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainwatch.capture.run_capture import RunCapture

NAMED = 3  # parameters that a line names


def unmeasured(capture: RunCapture, facts: dict[str, Any], looks: int) -> Iterator[str]:
    """Lines on what was put off, left out or not counted.

    Args:
        capture: Of the run.
        facts: Of its record.
        looks: Of the rule engine, put off to keep the budget.
    """
    if looks:
        told = "1 look of the rule engine was" if looks == 1 else f"{looks} looks of the rule engine were"
        yield f"{told} put off to keep the budget"
    if capture.pace.unwatched:
        yield f"{capture.pace.unwatched} of {capture.step} steps were not watched"
    if capture.classes.uncounted:
        yield f"the targets of {capture.classes.uncounted} batches were not counted"
    if capture.losses.empty:
        yield f"{capture.losses.empty} batches held no sample and have no loss"
    for some in facts.get("joined", {}).values():
        names = [p["name"] for p in some]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield (
            f"gradients and motion of {', '.join(names[:NAMED])}{more}, which joined the optimiser by step "
            f"{min(p['since'] for p in some)}, were not measured"
        )
    processes = facts.get("processes", {})
    for rank, why in processes.get("apart", {}).items():
        yield f"process {rank} of {processes['world']} was left out: {why}"
    if processes.get("gradients_differ"):
        yield "processes have gradients of their own after the backward pass: norms are those of process 0"
