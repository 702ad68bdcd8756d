"""What a lower learning rate would have brought, from the start on (§9)."""

from __future__ import annotations

from trainwatch.probes.bench import Bench
from trainwatch.probes.rate_from_start import STEPS as STEPS
from trainwatch.probes.rate_from_start import compare

KIND = "lower_start"
QUANTITIES = (KIND,)
AT_END = True
FACTOR = 0.2  # on the highest rate of the run


def measure(bench: Bench) -> None:
    """See `rate_from_start.compare`."""
    compare(bench, KIND, FACTOR)
