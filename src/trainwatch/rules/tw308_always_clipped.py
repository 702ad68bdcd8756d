"""TW308: clipping shortens nearly every gradient, not the rare large ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, no_remark
from trainwatch.symptoms.clipping import START, Clipping, clipping_of
from trainwatch.symptoms.gradients import SGD, clipping_limits, gradients_of
from trainwatch.symptoms.losses import LossCourse, loss_course
from trainwatch.symptoms.motion import Reach, reach_of
from trainwatch.symptoms.plateau import gained_in_both, has_settled

EFFECTS = ("TW203", "TW204", "TW205", "TW208", "TW401", "TW402", "TW602")
USUAL = 10.0  # weights' lengths that the updates of a sound run sum up to, as in TW602


@dataclass(frozen=True)
class AlwaysClipped(Rule):
    """The limit lies below what gradients usually are, so every step is as short as the limit.

    ## Symptom
    After the first tenth of the run, the gradient's norm is above the limit in `always` of the steps.

    ## Why it hurts
    Under plain gradient descent each update is then as long as rate times limit, however large or small the gradient
    is: a rate that was chosen without clipping is too small by the factor that clipping takes off. An optimiser that
    scales gradients by itself, as Adam does, undoes a constant factor: there it is a remark.

    ## How it is measured
    `grad_norm` is taken before clipping; its total over all parameters against what clipping leaves of it (at most:
    where entries are clipped, all of them at the limit). A warning where, under plain gradient descent, the median
    gradient is `shortened` times that, all clipped updates together are shorter than `path` times the weights, and less
    than `learned` of the loss of a constant guess is gone and it has not come to rest. Judged from `steps` steps after
    the first tenth.

    ## Remedies
    `gradient-clipping` at a norm from this run.

    ## Not a fault when
    The loss is good. Training has only begun. Weights move as far as they do in sound runs all the same, since the rate
    was chosen for clipped gradients (language models are trained so).

    ## Sources
    §9; Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks" (2013), who take the
    limit from the average norm over many updates.
    """

    code: ClassVar[str] = "TW308"
    name: ClassVar[str] = "always-clipped"
    section: ClassVar[str] = "§9"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "grad_norm")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, no_remark)

    always: float = 0.95
    shortened: float = 3.0
    path: float = 1.0
    learned: float = 0.7
    steps: int = 50

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if not np.isfinite(clipping_limits(record)).any():
            return
        course, clip = record.memo(loss_course), record.memo(clipping_of)
        if course is None or record.memo(gradients_of) is None:
            raise NotChecked("several optimisers: which gradients are clipped together is not known")
        if record.steps < self.steps / (1 - START):
            raise NotChecked(f"only {record.steps} steps were seen; {self.steps} are needed after the first tenth")
        if clip is None or clip.share < self.always or not np.isfinite(course.end):
            return
        reach, gained = record.memo(reach_of), gained_in_both(record)
        over = bool(record.facts.get("run", {}).get("finished"))
        short = (
            clip.optimizer in SGD and clip.factor >= self.shortened and reach is not None and reach.total < self.path
        )
        if over and short and gained < self.learned and not has_settled(record):
            assert reach is not None
            yield self._found(course, clip, gained, Severity.WARNING, tuple(_remedies(clip, reach)), reach)
        else:
            yield self._found(course, clip, gained, Severity.INFO, ())

    def _found(
        self, course: LossCourse, clip: Clipping, gained: float, severity: Severity, cures: tuple[Remedy, ...],
        reach: Reach | None = None,
    ) -> Diagnosis:  # fmt: skip
        error = max(np.sqrt(clip.share * (1 - clip.share) / clip.steps), 1 / clip.steps)
        margin = (clip.share - self.always) / error
        effect = f"each step is {clip.factor:.2g} times as short as its gradient" if reach else "no harm is seen in it"
        where = "entry by entry, to a norm" if clip.by_entry else "at a norm"
        path = () if reach is None else (
            Evidence("sum of all clipped updates over the weights", reach.total, self.path,
                     note=f"{reach.optimizer}, lr {reach.rate:.3g}; usual are 2 to 60"),
        )  # fmt: skip
        return self.diagnose(
            f"{clip.share:.0%} of the gradients are clipped, {where} of {clip.limit:.3g}: {effect}; the loss went "
            f"{course.story}",
            severity=severity,
            margin=float(min(margin, (self.learned - gained) / course.gained_error) if reach else margin),
            onset_step=clip.first,
            evidence=(
                Evidence("share of steps whose gradient is clipped", clip.share, self.always, step=clip.first,
                         note=f"of {clip.steps} looked at after the first tenth"),
                Evidence("median norm over the limit", clip.factor, self.shortened, note="all parameters together"),
                *path,
                Evidence("share of the loss that training removed", gained, self.learned, where=course.stream,
                         step=int(course.steps[-1]), note="the lesser of training and validation"),
            ),
            remedies=cures,
        )  # fmt: skip


def _remedies(clip: Clipping, reach: Reach) -> Iterator[Remedy]:
    """A limit that cuts one step in ten, or the one with which steps get as far as usual, whichever is lower."""
    lacking = USUAL / reach.total if reach.total else clip.factor
    limit = min(clip.usual, clip.limit * lacking)
    reason = f"At {clip.limit:.3g} it cuts {clip.share:.0%} of the steps; nine in ten norms are below {clip.usual:.2g}."
    yield remedy("gradient-clipping", max_norm=f"{limit:.2g}", reason=reason)
