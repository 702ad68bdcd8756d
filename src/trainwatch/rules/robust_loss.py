"""The remedy `robust-loss`, with norms of output minus target (§5)."""

from __future__ import annotations

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.curves import primary_stream
from trainwatch.symptoms.ranges import range_of
from trainwatch.symptoms.residuals import residuals

SQUARED = "mse_loss"
HEAVY = 1.6  # root mean square over mean absolute error: 1.25 where errors are normal, 1.41 where they are Laplace's
FAR = 10.0  # ranges: the farthest of some thousands lies .7 beyond where they are normal, 2 where exponential
# Huber's bound of 1.345 standard deviations loses 5 % where errors are normal; their median is 0.6745 of one.
BOUND = 1.345 / 0.6745


def robust_loss(record: RunRecord) -> Remedy:
    """The remedy for a squared error; the bound is that of normal errors with the median of these."""
    found = record.memo(residuals)
    if found is None or not found.median > 0:
        delta, unit, told = 1.0, "delta in the targets' unit", "Norms of the errors: not measured."
    else:
        delta, unit = BOUND * found.median, "delta is about twice the median error"
        told = f"Errors r of {found.stream} at step {found.step}: {found.text}."
    return remedy("robust-loss", present=SQUARED, delta=delta, unit=unit, errors=told)


def heavy_tails(record: RunRecord) -> tuple[list[Evidence], list[Remedy]]:
    """Evidence and remedy where few large errors make up most of a squared one, in validation or in training."""
    shown = [*_of_validation(record), *far_targets(record)]
    return shown, [robust_loss(record)] if shown else []


def far_targets(record: RunRecord) -> list[Evidence]:
    """Training targets of a squared error that lie far beyond all others: most of what is learned is to reach them."""
    targets = range_of(record, "target_stats", SQUARED)
    if targets is None or not targets.high > targets.low:
        return []
    far = max(targets.most - targets.high, targets.low - targets.least) / (targets.high - targets.low)
    name = "farthest training target beyond nine tenths of them, over their range"
    note = f"from {targets.least:.3g} to {targets.most:.3g}, nine tenths from {targets.low:.3g} to {targets.high:.3g}"
    return [Evidence(name, far, FAR, where=SQUARED, step=targets.step, note=note)] if far >= FAR else []


def _of_validation(record: RunRecord) -> list[Evidence]:
    found = record.memo(residuals)
    facts = record.facts.get("validation", {}).get(primary_stream(record) or "", {})
    if found is None or found.tail < HEAVY or facts.get("criterion") != SQUARED:
        return []
    name = "root mean square over mean absolute error"
    return [Evidence(name, found.tail, HEAVY, where=found.stream, step=found.step, note=found.text)]
