"""What probes found at the sites of a forward pass: activations, gates, attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainwatch.record import RunRecord
from trainwatch.record.series import Array


def probed(record: RunRecord, quantity: str, topic: str) -> Iterator[tuple[str, dict[str, Any], Array, Array]]:
    """Each site in order of execution, with its facts, the steps of its probes, and their rows.

    Args:
        record: The run.
        quantity: What was measured at the sites.
        topic: The facts that list them: site -> at least `order`.
    """
    known = record.facts.get(topic, {})
    for site, facts in sorted(known.items(), key=lambda item: int(item[1]["order"])):
        series = record.series(quantity, site)
        if series is not None and len(series):
            yield site, facts, *series.history()
