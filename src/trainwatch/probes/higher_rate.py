"""What a higher learning rate would have brought, from the start on (§9)."""

from __future__ import annotations

from trainwatch.probes.bench import Bench
from trainwatch.probes.rate_from_start import STEPS as STEPS
from trainwatch.probes.rate_from_start import compare

KIND = "higher_rate"
QUANTITIES = (KIND,)
AT_END = True
FACTOR = 5.0  # on the highest rate of the run


def measure(bench: Bench) -> None:
    """See `rate_from_start.compare`."""
    compare(bench, KIND, FACTOR)
