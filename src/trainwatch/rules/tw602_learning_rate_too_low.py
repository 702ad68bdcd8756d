"""TW602: all steps together are too short to get anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.rules import short_steps
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.begun_evidence import Ahead, faster_better
from trainwatch.rules.short_steps import USUAL, Spent, late_line, longer, still_rising, way_of
from trainwatch.rules.step_remedies import tried_lengths
from trainwatch.symptoms.begun_again import higher_rate
from trainwatch.symptoms.losses import LossCourse, loss_course
from trainwatch.symptoms.motion import Reach, reach_of
from trainwatch.symptoms.plateau import SURE, has_settled
from trainwatch.symptoms.step_line import StepLine


@dataclass(frozen=True)
class LearningRateTooLow(Rule):
    """The rate is so small that the weights end where they began, and so does the loss.

    ## Symptom
    The lengths of all updates sum up to less than `path` of the length of the weights, and less than `learned` of the
    loss of a constant guess is gone. One update is on average shorter than `each` of the weights. Or a warm-up was not
    over when the run ended, with less than `good` of the loss gone. Or a schedule took the rate to nothing in the first
    half of the run, and a copy whose rate lasted gets `gain` further.

    ## Why it hurts
    The run costs what a good one costs. Whatever the network could learn is further away than its steps can take it.

    ## How it is measured
    Each update is at most rate times gradient for SGD (over 1 - momentum), and about the rate for each weight of
    Adam's kin, from `grad_norm` and `lr`. Their sum bounds the path, whatever its turns. In sound trainings it is 2 to
    60 times the weights. Judged at the end of runs of at least `steps` steps. One experiment is to go on along the step
    that comes next: where a step of `enough` times its length is no better for other batches, it is long enough.
    Another decides alone where an update is shorter than `short` and less than `best` of the loss is gone: of two
    copies that learn from the start the one at five times the rate ends lower than the other and than the run, by
    `gain` of the loss of a constant guess in training and in validation (`higher_rate`), there by `slight` where an
    update is below `tiny`: the copies take 600 steps at most.

    ## Remedies
    `higher-learning-rate`, by the factor that this run lacks, but `smaller-epsilon` where that shortens steps;
    `shorter-warm-up` where that never ended; `slower-schedule` where that ended too soon.

    ## Not a fault when
    The loss is good already, as in careful fine-tuning, or it fell and came to rest: the remainder is noise. Gradients
    vanish, or weights begin at tiny values: the rate is not the cause then (TW301, TW309). Steps are of usual length
    but few: the run is short then (TW205). A copy at five times the rate went as far as sound runs do and is no better
    by `slight`: there is little to learn.

    ## Sources
    §9; Smith, "Cyclical learning rates for training neural networks" (2017), on finding the range of useful rates.
    """

    code = "TW602"
    name = "learning-rate-too-low"
    section = "§9"
    needs = ("train_loss", "grad_norm", "lr")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(("TW203", "TW204", "TW205", "TW208"), always)

    path: float = 1.0
    each: float = 0.0025
    learned: float = 0.7
    good: float = 0.9
    best: float = 0.95
    gain: float = 0.05
    short: float = 0.004
    slight: float = 0.02
    tiny: float = 0.001
    steps: int = 20
    enough: float = 8.0

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Try longer steps where those taken may be too short."""
        course, reach = record.memo(loss_course), record.memo(reach_of)
        short = reach is not None and reach.total < USUAL
        if course is not None and short and course.gained < self.good:
            yield ProbeRequest("step_line", reason="whether longer steps would be better", priority=1.0)
        if course is not None and short and course.gained < self.best:
            yield ProbeRequest("higher_rate", reason="whether a higher rate would have been better", priority=0.64)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended: how far its steps will lead is not known yet")
        course, reach = record.memo(loss_course), record.memo(reach_of)
        if course is None or reach is None:
            raise NotChecked("the length of a step is not known for these optimisers")
        if reach.steps < self.steps:
            raise NotChecked(f"only {reach.steps} steps were seen; {self.steps} are needed")
        copy, guess, way = record.memo(higher_rate), course.span, way_of(reach, course, USUAL)
        ended = short_steps.spent(record, reach, copy, self.gain * guess)
        if ended is not None:
            yield self._shown(ended, f"{ended.told}; the loss went {course.story}", way, *ended.remedies)
            return
        share = self.gain if reach.total >= self.tiny * reach.steps else self.slight
        ahead = faster_better(record, share, self.gain)
        if ahead is not None and reach.total < self.short * reach.steps and course.gained < self.best:
            told = f"with a learning rate of at most {reach.rate:.3g} the loss went {course.story}; {ahead.told}"
            yield self._shown(ahead, told, way, longer(record, reach, short_steps.further(reach, ahead.factor)))
            return
        line = late_line(record, reach)
        if line is not None and line.best < self.enough:
            return  # steps are long enough
        unfinished = still_rising(record) and reach.total < USUAL and bool(np.isfinite(course.end))
        if unfinished and course.gained < self.good:
            what = "the rate was still rising when the run ended"
            yield self._found(course, reach, line, what, self.good, short_steps.shorter_warm_up(record, reach))
            return
        if reach.total >= self.path or reach.total >= self.each * reach.steps:
            return
        if course.gained >= self.learned or not np.isfinite(course.end) or has_settled(record):
            return
        if (line is not None and line.fall < SURE * line.error) or short_steps.is_long_enough(
            reach, copy, self.slight * guess
        ):
            return  # nothing that longer steps would gain
        what = f"all {reach.steps} updates together are about as long as {reach.total:.2g} of the weights"
        first = longer(record, reach, short_steps.proposed(reach, line))
        yield self._found(course, reach, line, what, self.learned, first)

    def _shown(self, lead: Ahead | Spent, told: str, way: Evidence, *first: Remedy) -> Diagnosis:
        return self.diagnose(told, margin=lead.margin, onset_step=0, evidence=(lead.shown, way), remedies=first)

    def _found(
        self, course: LossCourse, reach: Reach, line: StepLine | None, what: str, learned: float, first: Remedy
    ) -> Diagnosis:
        return self.diagnose(
            f"with a learning rate of at most {reach.rate:.3g} {what}; the loss went {course.story}",
            margin=min((learned - course.gained) / course.gained_error, 1e3),
            onset_step=0,
            evidence=(
                way_of(reach, course, self.path),
                Evidence("share of the loss that training removed", course.gained, learned, where=course.stream,
                         step=int(course.steps[-1])),
                *tried_lengths(line, self.enough),
            ),
            remedies=(first,),
        )  # fmt: skip
