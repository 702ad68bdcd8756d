"""TW204: training has come to rest far above what should be reachable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, no_remark
from trainwatch.rules.fit_evidence import advice, reason, shown, standing
from trainwatch.symptoms.experiments import Lead, evaluated, lead, one_batch
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.plateau import Trend, rate_is_steady, training_trend, validation_trend
from trainwatch.symptoms.restraints import restraints

CLOSES = 0.5  # of the lead of another: what would get that far by half as many steps again has only to go on
FLAT = 0.01  # of the loss of a constant guess: what a fifth of the steps more may gain on a plateau
GAP = 0.1  # of the loss of a constant guess, between validation and training: more is memorised, not missed
STARTED = 0.02  # a network that learned less than that has another fault, unless something holds it back
GOOD = 0.9  # of the loss of a constant guess gone: then no experiment is worth its time
PROBES = {"train_eval": 0.7, "reference": 0.6, "one_batch": 0.5}  # the most telling first


@dataclass(frozen=True)
class Underfitting(Rule):
    """The loss is poor on training and validation data alike, and the data have more to tell.

    ## Symptom
    At the end neither training nor validation has removed `poor` of the loss of a constant guess (`held` under dropout
    or decay), and the run has one of these: dropout of `strong_dropout` or more, weight decay of `strong_decay`
    (decoupled; `strong_penalty` where it is added to the gradient) with the steps to take effect, neither of which was
    tried to leave out in vain, or a layer too narrow for the classes. Or another predictor does better on samples new
    to it than the network on those and on its own training samples, by `lead` of the loss of a constant guess and by
    `errors` standard errors.

    ## Why it hurts
    The network would do better on new data if it were allowed to fit its training data better.

    ## How it is measured
    The training loss, and the validation loss where there are passes enough, against the loss of a constant guess: the
    entropy of the classes, or the variance of the targets under a squared loss. The loss lies on a plateau: the upper
    bound of what a fifth of the steps more would gain is small. Where another predictor is ahead it is enough that half
    as many steps again would not close half of that lead; where something holds the network back, that half as many
    steps again would not make it good; under strong dropout it need not settle at all. Nearest neighbours and gradient
    boosting learn from the held training batches alone, so one of them may be ahead for sure (`reference_loss`,
    `evaluated_loss`), but being behind says nothing. Where the learning rate was brought down, the loss may rest for
    that alone: the lead of another then counts only if `kept` of the loss of a single batch is left after steps on
    nothing else at the run's highest rate (`one_batch_fit`).

    ## Remedies
    `weaker-regularisation`, `less-dropout`, `larger-model`; `boosting` as a measure of what can be reached.

    ## Not a fault when
    The rest of the loss is noise: a loss above zero alone says nothing. Without a cause in sight or a predictor that is
    ahead the finding is therefore a remark, given below `remark` and without a gap between training and validation.

    ## Sources
    §3; Goodfellow, Bengio and Courville 2016, "Deep Learning", 5.2.
    """

    code: ClassVar[str] = "TW204"
    name: ClassVar[str] = "underfitting"
    section: ClassVar[str] = "§3"
    needs: ClassVar[tuple[str, ...]] = ("train_loss",)
    explains: ClassVar[dict[str, Predicate]] = {"TW203": no_remark, "TW205": no_remark, "TW208": no_remark}

    poor: float = 0.6
    held: float = 0.8
    remark: float = 0.5
    strong_dropout: float = 0.7
    strong_decay: float = 1.0
    strong_penalty: float = 0.05
    lead: float = 0.1
    errors: float = 3.0
    kept: float = 0.75

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """What is within reach, and what keeps the network from it, where the loss is not low."""
        course = record.memo(loss_course)
        if course is not None and course.gained < GOOD:
            yield from (
                ProbeRequest(kind, (), "the loss is not low: could it be lower?", p) for kind, p in PROBES.items()
            )

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare where both losses came to rest with the loss of a constant guess."""
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended")
        if len(record.facts.get("optimizers", {})) > 1:
            raise NotChecked("several optimisers: their losses have no common course")
        training, validation = record.memo(training_trend), record.memo(validation_trend)
        trends = [t for t in (validation, training) if t is not None and t.chance is not None]
        if training is None or not trends:
            raise NotChecked("too few steps, or a loss of which it is not known what a constant guess costs")
        best = max(trends, key=_learned)
        learned, error = _learned(best), best.fall_error / abs(best.chance or 1.0)
        look = record.memo(evaluated) if validation is None else None
        if look is not None and best.chance:  # without the noise of dropout
            learned = max(learned, 1 - look.training / best.chance)
        ahead, settled, guess = self._ahead(record), trends[0], abs(trends[0].chance or 1.0)  # validation, less noisy
        causes = standing(record, restraints(record, self.strong_dropout, self.strong_decay, self.strong_penalty))
        poor = self.held if any(c.strong for c in causes) else self.poor
        flat = settled.gains_less_than(FLAT, of=guess)
        if ahead is not None and (flat or settled.gains_less_than(CLOSES * ahead.lead / guess, of=guess, steps=0.5)):
            margin = ahead.lead / ahead.error
        elif learned > poor:
            return
        else:
            ahead, margin = None, (poor - learned) / max(error, 1e-3)
            hopeless = settled.gains_less_than(poor - max(learned, 0.0), of=guess, steps=0.5)
            if not flat and not (causes and hopeless) and not any(c.slows for c in causes):
                return
            gap = validation.end - training.end if validation is not None else 0.0
            if not causes and (not STARTED < learned < self.remark or gap > GAP * abs(training.reference)):
                return
        yield self.diagnose(
            f"training {'has come to rest' if flat else 'ended'} at a loss of {training.end:.3g}, with "
            f"{max(learned, 0.0):.0%} of the loss of a constant guess gone{reason(causes, ahead)}",
            severity=Severity.WARNING if causes or ahead else Severity.INFO,
            margin=min(margin, 1e3),
            where=(causes[0].where,) if causes else (best.stream,),
            evidence=(
                Evidence(
                    "share of a constant guess's loss that is gone",
                    learned,
                    None if learned > poor else poor,
                    best.stream,
                ),
                *shown(record, trends, causes, ahead, self.lead),
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


def _learned(trend: Trend) -> float:
    """Share of the loss of a constant guess that was gone at the end."""
    return 1 - trend.end / trend.chance if trend.chance else 0.0
