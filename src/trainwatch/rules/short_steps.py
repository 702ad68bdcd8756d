"""What TW602 reads and says of steps that are too short."""

from __future__ import annotations

import numpy as np

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.gradients import learning_rates
from trainwatch.symptoms.motion import Reach
from trainwatch.symptoms.step_line import StepLine, step_line

USUAL = 10.0  # weights' lengths that the updates of a sound run sum up to: 2 to 60 in those it was measured on
LEAST = 2.0  # the least of them
HIGHEST = {"adaptive": 0.01, "plain": 0.3}  # a rate to propose at most, to be on the safe side
PLAIN = ("SGD",)
LONG, RISEN = 50, 1.5  # steps, and factor on the rate in the second half, of a warm-up that never ended
LATE, KEPT = 0.9, 0.5  # of all steps, and of the highest rate: from there on a tried step speaks for the run's


def higher(reach: Reach, rate: float) -> Remedy:
    """A rate that is as many times as high as the run lacks."""
    return remedy("higher-learning-rate", present=f"{reach.rate:.3g}", proposed=f"{rate:.1g}",
                  path=f"{reach.total:.2g}", usual=f"{USUAL:.0f}")  # fmt: skip


def further(reach: Reach, factor: float) -> float:
    """The rate that was tried; up to as many times that, where its path would be shorter than the least usual one."""
    tried = factor * reach.rate
    times = min(max(1.0, LEAST / (factor * reach.total)), factor) if reach.total else 1.0
    return min(times * tried, max(highest(reach), tried))


def highest(reach: Reach) -> float:
    """The highest rate that is proposed, for plain steps or adaptive ones."""
    return HIGHEST["plain" if reach.optimizer in PLAIN else "adaptive"]


def proposed(reach: Reach, line: StepLine | None) -> float:
    """The rate that brings the path to its usual length, at most what is safe and what was tried along a step."""
    most = max(highest(reach), 3 * reach.rate)
    rate = min(reach.rate * USUAL / reach.total, most) if reach.total else most
    return min(rate, line.rate * line.best) if line is not None else rate


def late_line(record: RunRecord, reach: Reach) -> StepLine | None:
    """The line along the last step, if that was about as long as the others."""
    line = record.memo(step_line)
    late = line is not None and line.step >= LATE * record.steps and line.rate >= KEPT * reach.rate
    return line if late else None


def still_rising(record: RunRecord) -> bool:
    """A warm-up that never ended: the rate is at its highest at the end, and far above that in mid-run."""
    if record.steps < LONG:
        return False
    at = np.linspace(0, record.steps - 1, 9).astype(int)
    rates = learning_rates(record, at)
    return bool((np.diff(rates) > 0).all() and rates[-1] > RISEN * rates[4])
