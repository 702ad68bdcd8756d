"""TW601: steps so long that the loss left its start behind, upwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, ProbeRequest, Rule, always, not_later
from trainwatch.rules.begun_evidence import BEST
from trainwatch.rules.long_steps import (
    LOWER,
    all_along,
    calmer_steps,
    gone,
    harmless,
    lead_of,
    leapt,
    lost_in_validation,
    no_better,
    tried,
)
from trainwatch.rules.non_finite_source import grew_from_then
from trainwatch.rules.step_remedies import shorter_steps
from trainwatch.symptoms.begun_again import calmer
from trainwatch.symptoms.gradients import backward_signal, gradients_of, largest_update, weight_layers
from trainwatch.symptoms.losses import LossCourse, loss_course
from trainwatch.symptoms.motion import reach_of
from trainwatch.symptoms.plateau import gained_in_both
from trainwatch.symptoms.spikes import broken_spikes

EFFECTS = ("TW203", "TW204", "TW205", "TW206", "TW208", "TW304", "TW305", "TW306", "TW401", "TW402", "TW403",
           "TW603", "TW604")  # fmt: skip
LATER = dict.fromkeys(("TW201", "TW202", "TW302"), not_later)


@dataclass(frozen=True)
class LearningRateTooHigh(Rule):
    """The steps were too long: the loss rose above its start and never came to be better.

    ## Symptom
    The loss leaps above its first value within the first updates, or loses in mid-run what it had gained, and stays
    there. Or the updates are never shorter than a good part of the weights, and the loss comes to rest high above 0.

    ## Why it hurts
    A step longer than the loss surface is smooth leads uphill. The weights end far away, where units are saturated or
    dead, and a lower rate from then on no longer helps.

    ## How it is measured
    Three things come together, after `min_steps` or a loss that is not finite. The loss rises by `jump` of its first
    value and by `noise_jump` deviations. At the end less than `learned` of the loss of chance (else of the first loss)
    is gone, or `relapse` of the best gain is lost again; or all of validation lies `jump` above chance, whatever the
    noise. And an update until then was longer than `update` of the weights: lr |g| / |w| for SGD, lr sqrt(n) / |w| for
    Adam's kin. Or the mean of all updates is above `sustained` of the weights while less than
    `fair` of the loss of chance is gone, or above `huge` of them and less than `good` is gone, in training or in
    validation. Or it is above `long`, and a copy that learns from the start, at the highest rate of the run or a fifth
    of it, which then falls to nothing, ends lower than the run in training and than its best in validation, by `led` of
    chance (`lower_start`): a warning. Where such a copy comes as far and no further, long steps did no harm.
    Silent where the gradient rose by `amplified` powers of ten from the last layer to the first before any update. A
    single layer has a minimum of its own, and how low a loss of unknown chance could be only copies tell: else less
    than `learned` must be gone.

    ## Remedies
    `lower-learning-rate`, to updates of 1 % of the weights; `decay-learning-rate`; `warm-up`; `gradient-clipping`.

    ## Not a fault when
    The loss recovers: noise, warm-up, restarts, single spikes. A gradient amplified in the first pass is TW302.

    ## Sources
    §9; Goodfellow et al., "Deep Learning" (2016), 11.4.1; Goyal et al., "Accurate, Large Minibatch SGD" (2017).
    """

    code: ClassVar[str] = "TW601"
    name: ClassVar[str] = "learning-rate-too-high"
    severity: ClassVar[Severity] = Severity.ERROR
    section: ClassVar[str] = "§9"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "grad_norm", "lr")
    explains: ClassVar[Any] = dict.fromkeys(EFFECTS, always) | LATER | {"TW303": grew_from_then}

    jump: float = 0.5
    noise_jump: float = 5.0
    learned: float = 0.1
    relapse: float = 0.7
    update: float = 0.1
    sustained: float = 0.3
    fair: float = 0.75
    huge: float = 0.5
    good: float = 0.9
    long: float = 0.1
    led: float = 0.05
    amplified: float = 2.0
    min_steps: int = 30

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Try shorter steps where those taken seem too long: how long they may be, and a lower rate from the start."""
        yield from [ProbeRequest("step_line", (), "how long a step may be", 0.5)] if self.fires(record) else []
        reach, gained = record.memo(reach_of), gained_in_both(record)
        if reach is not None and reach.total >= self.long * reach.steps and gained < BEST:
            first = 0.67 if gained < self.fair else 0.647  # where little was learned, before a copy that goes on
            yield ProbeRequest("lower_start", (), "whether a lower rate would have been better", first)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        course, gradients = record.memo(loss_course), record.memo(gradients_of)
        if course is None or gradients is None:
            raise NotChecked("several optimisers: their losses have no common course")
        if np.isfinite(course.values).all() and len(course) < self.min_steps:
            raise NotChecked(f"only {len(course)} steps were seen; {self.min_steps} are needed")
        if record.memo(broken_spikes) is not None:
            raise NotChecked("inputs of some samples dwarf all others, which makes the loss leap (TW604)")
        signal = record.memo(backward_signal)
        if not np.isfinite(course.values[0]) or (signal is not None and signal.decades[0] >= self.amplified):
            return  # it was there before the first update
        margin, from_best = course.harm(self.learned, self.relapse)
        began, came = int(course.steps[0]), no_better(course, self.learned)
        since, level = (course.best_step, course.best) if from_best else (began, course.start)
        onset = course.rise(self.jump, self.noise_jump, since, level)
        if margin <= 0 and (lost := lost_in_validation(record, 1 + self.jump)) is not None:
            (margin, came), since = lost, began
            onset = course.rise(self.jump, 0.0, began, course.start)
        if margin > 0 and onset is not None:
            if (update := largest_update(record, since, onset - 1)) is None:
                raise NotChecked(f"the length of a step of {gradients.optimizer['type']} is not known")
            if update[1] >= self.update:
                yield self.diagnose(**leapt(record, course, onset, update, self.update, *came), margin=margin)
                return
        yield from self._all_along(record, course)

    def _all_along(self, record: RunRecord, course: LossCourse) -> Iterator[Diagnosis]:
        if (reach := record.memo(reach_of)) is None:
            return
        mean, copy, least = reach.total / reach.steps, record.memo(calmer), self.led * course.span
        fair, gained = (self.good, gained_in_both(record)) if mean >= self.huge else (self.fair, course.gained)
        fair = fair if (course.chance is not None or copy) and weight_layers(record) > 1 else self.learned
        if mean >= self.sustained and gained < fair and not harmless(course, copy, least, LOWER * mean < self.long):
            yield self.diagnose(
                **all_along(record, reach, self.sustained, f"the loss went {course.story}", gone(course, gained, fair)),
                margin=min((fair - gained) / course.gained_error, 1e3),
                remedies=tuple(shorter_steps(record, reach.rate, mean, int(course.steps[-1]))),
            )
        elif mean >= self.long and copy is not None and copy.leads(least):
            yield self.diagnose(
                **all_along(record, reach, self.long, tried(copy), lead_of(copy, least)),
                severity=Severity.WARNING,
                margin=min((copy.gain - least) / max(copy.error, 1e-12), 1e3),
                remedies=tuple(calmer_steps(record, reach, copy)),
            )
