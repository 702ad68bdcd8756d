"""TW204: training has come to rest far above what should be reachable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.base import Predicate, ProbeRequest, Rule, no_remark
from trainwatch.rules.begun_evidence import Ahead, wider_better
from trainwatch.rules.fit_evidence import advice, falling, reason, shown
from trainwatch.rules.poor_fit import rest
from trainwatch.symptoms.experiments import Lead, evaluated, lead, one_batch
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.plateau import rate_is_steady, validation_trend
from trainwatch.symptoms.rest import Rest
from trainwatch.symptoms.restraints import narrow_layers

CLOSES = 0.5  # of the lead of another: what would get that far by half as many steps again has only to go on
GAP = 0.1  # of the loss of a constant guess, between validation and training: more is memorised, not missed
STARTED = 0.02  # a network that learned less than that has another fault, unless something holds it back
GOOD = 0.9  # of the loss of a constant guess gone: then no experiment is worth its time


@dataclass(frozen=True)
class Underfitting(Rule):
    """The loss is poor on training and validation data alike, and the data have more to tell.

    ## Symptom
    At the end neither training nor validation has removed `poor` of the loss of a constant guess (`held` with a layer
    of two units), and a layer is too narrow for the classes. Or another predictor does better on samples new to it than
    the network on those and on its own training samples, by `lead` of the loss of a constant guess and by `errors`
    standard errors. Or a wider copy that learns from the start ends lower than another as wide as the network, and than
    the run: by `room` of that loss in training, by `gain` in validation.

    ## Why it hurts
    The network would do better on new data if it were allowed to fit its training data better.

    ## How it is measured
    The training loss, and the validation loss where there are passes enough, against the loss of a constant guess: the
    entropy of the classes, or the variance of the targets under a squared loss. The loss lies on a plateau: the upper
    bound of what a fifth of the steps more would gain is small. Where another predictor is ahead it is enough that half
    as many steps again would not close half of that lead; where a layer is narrow, that half as many steps again would
    not make the network good. Nearest neighbours and gradient boosting learn from the held training batches alone, so
    one of them may be ahead for sure (`reference_loss`, `evaluated_loss`), but being behind says nothing. Where the
    learning rate was brought down, the loss may rest for that alone: the lead of another then counts only if `kept` of
    the loss of a single batch is left after steps on nothing else at the run's highest rate (`one_batch_fit`). Wider
    copies (`wider`) learn from held batches as well; half as many steps again of the run must not close half of their
    lead either.

    ## Remedies
    `larger-model`; `boosting` as a measure of what can be reached.

    ## Not a fault when
    The rest of the loss is noise: a loss above zero alone says nothing. Without a cause in sight or a predictor that is
    ahead the finding is therefore a remark, given below `remark` and without a gap between training and validation.
    A regulariser that holds the network back is TW206.

    ## Sources
    §3; Goodfellow, Bengio and Courville 2016, "Deep Learning", 5.2.
    """

    code: ClassVar[str] = "TW204"
    name: ClassVar[str] = "underfitting"
    section: ClassVar[str] = "§3"
    needs: ClassVar[tuple[str, ...]] = ("train_loss",)
    explains: ClassVar[dict[str, Predicate]] = {"TW203": no_remark, "TW208": no_remark}

    poor: float = 0.6
    held: float = 0.8
    remark: float = 0.5
    lead: float = 0.1
    errors: float = 3.0
    kept: float = 0.75
    room: float = 0.15
    gain: float = 0.05

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """What is within reach, and what keeps the network from it, where the loss is not low."""
        course, look = record.memo(loss_course), record.memo(evaluated)
        if course is None or course.gained >= GOOD:
            return
        left = np.inf if look is None else (look.training - course.floor) / course.span
        yield ProbeRequest("train_eval", (), "the loss is not low: nor in evaluation mode?", 0.7)
        if left > self.lead:
            yield ProbeRequest("reference", (), "the loss is not low: do other predictors get lower?", 0.6)
        if left > self.room:
            yield ProbeRequest("wider", (), "the loss is not low: would a wider net get lower?", 0.495)
        yield ProbeRequest("one_batch", (), "the loss is not low: is a single batch fitted?", 0.53)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare where both losses came to rest with the loss of a constant guess."""
        end = rest(record)
        ahead, wide, causes = self._ahead(record), self._wider(record, end), narrow_layers(record)
        poor = self.held if any(c.strong for c in causes) else self.poor
        settled = end.trends[0]
        if ahead is not None and (
            end.flat or settled.gains_less_than(CLOSES * ahead.lead / end.guess, of=end.guess, steps=0.5)
        ):
            margin = ahead.lead / ahead.error
        elif wide is not None:
            ahead, margin = None, wide.margin
        elif end.gone > poor:
            return
        else:
            ahead, margin = None, (poor - end.gone) / max(end.gone_error, 1e-3)
            if not end.flat and not (causes and end.falls_short_of(poor)):
                return
            gap = end.trends[0].end - end.training.end if record.memo(validation_trend) is not None else 0.0
            memorised = gap > GAP * abs(end.training.reference - end.training.floor)
            if not causes and (not STARTED < end.gone < self.remark or memorised):
                return
        most = None if end.gone > poor else poor
        share = Evidence("share of a constant guess's loss that is gone", end.gone, most, end.best.stream)
        yield self.diagnose(
            end.story + (f"; {wide.told}" if wide and not ahead else reason(causes, ahead)),
            severity=Severity.WARNING if causes or ahead or wide else Severity.INFO,
            margin=min(margin, 1e3),
            where=(causes[0].where,) if causes else (end.best.stream,),
            evidence=(
                share,
                *falling(end, causes),
                *shown(record, end.trends, causes, ahead, self.lead),
                *([wide.shown] if wide else []),
            ),
            remedies=tuple(advice(record, causes)),
        )

    def _ahead(self, record: RunRecord) -> Lead | None:
        """The lead of another predictor, where it is beyond the thresholds."""
        found = record.memo(lead)
        if found is None or found.lead < max(self.lead * found.rival.guess, self.errors * found.error):
            return None
        batch = record.memo(one_batch)  # a rate that was brought down makes a loss rest that would fall on
        stuck = batch is not None and batch.own > self.kept * batch.before
        return found if stuck or rate_is_steady(record) else None

    def _wider(self, record: RunRecord, end: Rest) -> Ahead | None:
        """The lead of a wider copy, where it is beyond the thresholds and not closed by going on."""
        found = wider_better(record, self.room, self.gain)
        if found is None or not (
            end.flat or end.trends[0].gains_less_than(CLOSES * found.copy.gain / end.guess, of=end.guess, steps=0.5)
        ):
            return None
        return found
