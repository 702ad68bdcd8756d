"""TW108: targets of a regression that the net must travel far to reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, no_remark
from trainwatch.rules.begun_evidence import standard_wanted, targets_better, targets_no_better
from trainwatch.rules.raw_data import raw_targets
from trainwatch.symptoms.gradients import weight_layers
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.motion import reach_of
from trainwatch.symptoms.ranges import Range, range_of
from trainwatch.symptoms.subject import is_of_data

SQUARED = ("mse_loss",)
LINEAR = ("l1_loss", "smooth_l1_loss", "huber_loss")
SIZE_OF_A_NORMAL = float(np.sqrt(2 / np.pi))  # mean absolute deviation over standard deviation
EFFECTS = ("TW203", "TW204", "TW205", "TW206", "TW208", "TW301", "TW302", "TW303", "TW304", "TW305", "TW306", "TW401",
           "TW402", "TW403", "TW601", "TW602", "TW603", "TW604")  # fmt: skip


@dataclass(frozen=True)
class UnnormalisedTargets(Rule):
    """The targets are far from what an untrained net puts out, and most of the run goes into getting there.

    ## Symptom
    The root mean square of the targets is above `large` or below `small`, and the loss is not below what predicting
    their mean would cost until `late` of the run is over, or never. Or the targets are large, an update is on average
    `stretch` times the weights, of which there are two layers or more (one gets to its best from anywhere), and less
    than `learned` of the loss of chance is gone. Or a copy that learns from the start on standardised targets explains
    `explained` of their variance in training, and `better` more in both parts.

    ## Why it hurts
    An untrained net puts out numbers of about one. With targets of hundreds the first gradients are as much too large:
    plain steps diverge, steps of a fixed size spend the run on an offset and a factor, which two lines would provide.

    ## How it is measured
    `target_stats` at steps 0, 1, 3, 7 ... gives mean and deviation; their constant guess costs the variance (squared
    error) or 0.8 deviations (absolute error). Judged from `steps` optimiser steps on. Copies learn from held batches
    where that size is `unusual` times 1 or less than its inverse, or the mean as many deviations (`standard_targets`).
    Before training (`trainwatch.audit`) such targets are a remark; a warning where those of validation lie `differs`
    times wider or narrower than those of training.

    ## Remedies
    `normalise-targets` with this run's numbers.

    ## Not a fault when
    The targets are labels, zeros and ones. The net reaches that level soon: a fitting rate, an output bias set to the
    mean. A copy on standardised targets learns as above, and surely less than `harmless` more than run and other copy.

    ## Sources
    §10; Bishop, "Neural Networks for Pattern Recognition" (1995), section 8.2.
    """

    code = "TW108"
    name = "unnormalised-targets"
    section = "§10"
    needs = ("target_stats",)
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, no_remark)

    large: float = 10.0
    small: float = 0.02
    late: float = 0.2
    stretch: float = 0.3
    differs: float = 3.0
    learned: float = 0.75
    unusual: float = 2.0
    better: float = 0.05
    harmless: float = 0.03
    explained: float = 0.2
    steps: int = 20

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Where targets are of an unusual size: what standardised ones would bring."""
        course = None if is_of_data(record) else record.memo(loss_course)
        if course is None or _function(record, course.stream) is None:
            return
        targets = range_of(record, "target_stats", course.stream)
        if targets is not None and self._is_unusual(targets):
            wanted = standard_wanted(record, "targets")
            yield from [wanted] if wanted is not None else []

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if is_of_data(record):
            raw = raw_targets(record, self.small, self.large, self.differs)
            return (yield from (self.diagnose(**fields) for fields in raw))
        course = record.memo(loss_course)
        if course is None:
            raise NotChecked("no training loss was seen")
        targets, function = range_of(record, "target_stats", course.stream), _function(record, course.stream)
        if targets is None or function is None:
            raise NotChecked("the loss is none of a regression on single targets, or its targets are not known")
        if record.steps < self.steps * (1 if record.facts.get("run", {}).get("finished") else 10):
            return
        if (ahead := targets_better(record, self.better, self.explained)) is not None and self._is_unusual(targets):
            yield self._found(targets, ahead.told, ahead.margin, ahead.shown)
            return
        if self.small <= targets.rms <= self.large or targets_no_better(record, self.harmless, self.explained):
            return
        mean_costs = targets.sd**2 if function in SQUARED else SIZE_OF_A_NORMAL * targets.sd
        reached, reach = course.reached(mean_costs), record.memo(reach_of)
        leap = 0.0 if reach is None or weight_layers(record) < 2 else reach.total / reach.steps
        if reached > self.late:
            until = f"until {reached:.0%} of the run was over" if reached <= 1 else "at any time"
            what = f"the loss ({course.story}) was not below that of predicting their mean ({mean_costs:.3g}) {until}"
            margin = (reached - self.late) * len(course) ** 0.5
            evidence = Evidence("share of the run before the loss is below that of the mean", min(reached, 1.0),
                                self.late, where=course.stream, step=record.steps)  # fmt: skip
        elif targets.rms > self.large and leap >= self.stretch and course.gained < self.learned:
            what = f"an update is on average {leap:.2g} times the weights' length, and the loss went {course.story}"
            margin = (self.learned - course.gained) / course.gained_error
            evidence = Evidence("mean update over weights", leap, self.stretch, step=record.steps)
        else:
            return
        yield self._found(targets, what, margin, evidence)

    def _found(self, targets: Range, what: str, margin: float, evidence: Evidence) -> Diagnosis:
        return self.diagnose(
            f"targets of {targets.mean:.3g} +- {targets.sd:.3g}: {what}",
            margin=min(margin, 1e3),
            where=("targets",),
            onset_step=0,
            evidence=(
                Evidence("root mean square of the targets", targets.rms, self.large, where="targets",
                         step=targets.step, note=f"too small below {self.small:g}"),
                evidence,
            ),
            remedies=(remedy("normalise-targets", mean=f"{targets.mean:.4g}", std=f"{targets.sd:.4g}"),),
        )  # fmt: skip

    def _is_unusual(self, targets: Range) -> bool:
        labels = targets.whole == 1 and 0 <= targets.least <= targets.most <= 1  # of one output for each class
        unit = 1 / self.unusual <= targets.rms <= self.unusual
        return not labels and not (unit and abs(targets.mean) <= self.unusual * targets.sd)


def _function(record: RunRecord, stream: str) -> str | None:
    """The loss, where it is the mean of a regression's."""
    known = record.facts.get("loss", {}).get(stream, {})
    return known["function"] if known.get("function") in (*SQUARED, *LINEAR) and known["reduction"] == "mean" else None
