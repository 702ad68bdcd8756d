"""What TW602 reads and says of steps that are too short."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.begun_evidence import lead
from trainwatch.symptoms.begun_again import OtherRate
from trainwatch.symptoms.gradients import ADAPTIVE, EPSILON, gradients_of, kept_beside_epsilon, learning_rates
from trainwatch.symptoms.losses import LossCourse
from trainwatch.symptoms.motion import Reach
from trainwatch.symptoms.plateau import SURE
from trainwatch.symptoms.step_line import StepLine, step_line

USUAL = 10.0  # weights' lengths that the updates of a sound run sum up to: 2 to 60 in those it was measured on
LEAST = 2.0  # the least of them
HIGHEST = {"adaptive": 0.01, "plain": 0.3}  # a rate to propose at most, to be on the safe side
PLAIN = ("SGD",)
LONG, RISEN = 50, 1.5  # steps, and factor on the rate in the second half, of a warm-up that never ended
BRAKED = 0.2  # of its rate: an adaptive step that keeps no more beside epsilon is short for that
EARLY, NOTHING = 0.5, 0.01  # of the steps, and of the highest rate: a schedule that ends as soon and as low
LOOKS = 1024  # at the rate, over a run
LATE, KEPT = 0.9, 0.5  # of all steps, and of the highest rate: from there on a tried step speaks for the run's


def way_of(reach: Reach, course: LossCourse, least: float) -> Evidence:
    """How far all updates together went."""
    note = f"{reach.optimizer}, lr {reach.rate:.3g}; usual are 2 to 60"
    return Evidence("sum of all updates over the weights", reach.total, least, step=int(course.steps[-1]), note=note)


def higher(reach: Reach, rate: float) -> Remedy:
    """A rate that is as many times as high as the run lacks."""
    return remedy("higher-learning-rate", present=f"{reach.rate:.3g}", proposed=f"{rate:.1g}",
                  path=f"{reach.total:.2g}", usual=f"{USUAL:.0f}")  # fmt: skip


def longer(record: RunRecord, reach: Reach, rate: float) -> Remedy:
    """A smaller epsilon where a large one shortens steps, else a higher rate."""
    gradients = record.memo(gradients_of)
    groups = () if gradients is None else gradients.optimizer["groups"]
    epsilon = max((float(group.get("eps") or 0.0) for group in groups), default=0.0)
    if gradients is None or epsilon <= EPSILON or reach.optimizer not in ADAPTIVE:
        return higher(reach, rate)
    numels = np.array([p["numel"] for p in gradients.parameters])
    usual = float(np.nanmedian(np.where(np.isfinite(gradients.norms), gradients.norms, np.nan) / np.sqrt(numels)))
    kept = kept_beside_epsilon({"eps": epsilon}, np.full((1, 1), usual), np.ones(1)).item()
    if kept > BRAKED:
        return higher(reach, rate)
    return remedy("smaller-epsilon", present=f"{epsilon:.3g}", gradient=f"{usual:.2g}", kept=f"{kept:.2g}",
                  rate=f"{reach.rate:.3g}")  # fmt: skip


def shorter_warm_up(record: RunRecord, reach: Reach) -> Remedy:
    """A warm-up of a tenth of the run."""
    rate = f"{reach.rate:.3g}"
    return remedy("shorter-warm-up", steps=max(10, record.steps // 10), taken=record.steps, present=rate)


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


def is_long_enough(reach: Reach, copy: OtherRate | None, least: float) -> bool:
    """A copy at a higher rate took a path of usual length, and is no better for it by so much."""
    if copy is None or not copy.factor * reach.total * copy.steps / reach.steps >= LEAST:
        return False
    return copy.gain <= max(least, SURE * copy.error)


@dataclass(frozen=True)
class Spent:
    """A schedule that took the rate away, and a copy that learned at the rate of the run all along.

    Attributes:
        until: Step from which on the rate is next to nothing.
        steps: Of the run.
        reach: How far it went.
        copy: Its losses beside those of the run.
        least: What counts.
    """

    until: int
    steps: int
    reach: Reach
    copy: OtherRate
    least: float

    @property
    def margin(self) -> float:
        """Standard errors by which the copy leads by more than counts."""
        return lead(self.copy.rested, self.least, self.copy.error)

    @property
    def told(self) -> str:
        """The schedule and the lead in words."""
        before, usual, _ = self.copy.validation
        return (
            f"the learning rate was below a hundredth of {self.reach.rate:.3g} from step {self.until} of {self.steps} "
            f"on; a copy whose rate lasted came to a validation loss of {usual:.3g}, and the run ended at {before:.3g}"
        )

    @property
    def shown(self) -> Evidence:
        """The lead as evidence."""
        note = f"in validation, over the run at its best; standard error {self.copy.error:.2g}"
        return Evidence(
            "lead of a copy whose rate lasted", self.copy.rested, self.least, step=self.copy.step, note=note
        )

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """A schedule for as long as the run; a higher rate, too, where steps at this one all along are too short."""
        schedule = remedy("slower-schedule", present=f"{self.reach.rate:.3g}", until=self.until, steps=self.steps)
        if self.reach.total * self.steps / self.until >= LEAST:
            return (schedule,)
        return schedule, higher(self.reach, further(self.reach, self.copy.factor))


def spent(record: RunRecord, reach: Reach, copy: OtherRate | None, least: float) -> Spent | None:
    """A rate below `NOTHING` of its highest from the first half of the run on, where a copy shows what that costs."""
    if record.steps < LONG or copy is None or not copy.outlasts(least):
        return None
    at = np.linspace(0, record.steps - 1, min(record.steps, LOOKS)).astype(int)
    rates = learning_rates(record, at)
    last = int(at[np.flatnonzero(rates >= NOTHING * rates.max())[-1]])
    return Spent(last + 1, record.steps, reach, copy, least) if last < EARLY * record.steps else None


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
