"""TW206: dropout, weight decay or a penalty keeps the network from what it could learn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import MODEST, NotChecked, Predicate, ProbeRequest, Rule, no_remark
from trainwatch.rules.dropout_remedies import VOTES, dropout_evidence
from trainwatch.rules.fit_evidence import held_back, reason
from trainwatch.rules.fit_remedies import loosened
from trainwatch.rules.poor_fit import rest
from trainwatch.rules.release_evidence import BY_KIND, beyond, compared, in_use, memorised, standing, without
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.experiments import Release, releases, unpenalised
from trainwatch.symptoms.losses import LossCourse, loss_course, penalty_share
from trainwatch.symptoms.restraints import regularisers

MOST = 0.2  # of what is backpropagated, from which on a term is the likeliest to keep the loss up
EFFECTS = ("TW102", "TW202", "TW203", "TW204", "TW205", "TW208", "TW304", "TW401", "TW402")


@dataclass(frozen=True)
class OverRegularised(Rule):
    """Without dropout, weight decay or a penalty the network would do better, on new samples as well.

    ## Symptom
    Less than `learned` of the loss of a constant guess is gone, and copies that learn without a regulariser get at
    least `gain` of that loss lower than the run and than a copy that learns with it, in training and in validation. Or
    no copy could tell, less than `held` is gone, hardly more to come, under dropout of `strong_dropout` or decay of
    `strong_decay` (decoupled; else `strong_penalty`) that had the steps to take effect.

    ## Why it hurts
    A regulariser is to hold back what does not carry over to new samples. This one holds back what does.

    ## How it is measured
    `without_regulariser`, by a probe at the end: copies of the model, drawn anew, learn from the same held batches, as
    the run does and without each regulariser: dropout, decay, L1 and L2 terms, proximal steps. Losses are compared in
    evaluation mode, on the same samples. The gain must be beyond `errors` standard errors, and the copy that learns as
    the run does must not get `anyway` of the way unless the gain is `clear`; so that of a term must be to account for
    what the term does besides. Any other term that makes up `added` of what is backpropagated is in no copy: learning
    without it must gain `large`. Where no validation batch is held, the run's own validation loss must not lie above
    that of training by more than half the gain; without any it is a remark. A strong regulariser is cleared by copies
    that fit training as well without it, and in validation get no lower, or surely by less than `gain`. Unless dropout
    is strong, half as many steps again would not do.

    ## Remedies
    `less-dropout`, `weaker-regularisation`, `weaker-penalty`, `weaker-proximal-step`.

    ## Not a fault when
    Only training gets better: that is what it is for. The gain is below `gain` and `part` of what is left: a remark
    from `remark` on. The network is good, or would have got better: the run is too short then (TW205).

    ## Sources
    §3; Goodfellow et al. 2016, "Deep Learning", chapter 7.
    """

    code: ClassVar[str] = "TW206"
    name: ClassVar[str] = "over-regularised"
    section: ClassVar[str] = "§3"
    needs: ClassVar[tuple[str, ...]] = ("train_loss",)
    explains: ClassVar[dict[str, Predicate]] = {**dict.fromkeys(EFFECTS, no_remark), **BY_KIND}

    learned: float = 0.9
    gain: float = 0.05
    part: float = 0.15
    remark: float = 0.025
    errors: float = 2.5
    anyway: float = 0.5
    added: float = 0.05
    clear: float = 0.1
    large: float = 0.2
    held: float = 0.8
    strong_dropout: float = 0.7
    strong_decay: float = 1.0
    strong_penalty: float = 0.05

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Learning without what regularises, where the loss is not low."""
        course = record.memo(loss_course)
        if course is not None and course.gained < self.learned and in_use(record, self.added):
            strong = regularisers(record, self.strong_dropout, self.strong_decay, self.strong_penalty)
            first = 1.21 if strong or record.memo(penalty_share) >= MOST else 0.51  # before a saddle is looked for
            yield ProbeRequest("without_regulariser", (), "the loss is not low: does a regulariser keep it up?", first)
            yield from [VOTES] if record.facts.get("regularisation", {}).get("dropout") else []

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the copies with and without each regulariser; where they do not tell, look at its strength."""
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended")
        course, further = record.memo(loss_course), record.memo(unpenalised)
        added = record.memo(penalty_share) >= self.added
        tried = record.memo(releases) + ([further] if further is not None and added else [])
        if course is None or not in_use(record, self.added) or course.gained >= self.learned:
            return
        if margins := {one: margin for one in tried if (margin := self._margin(record, one, course)) > 0}:
            alone = max(margins, key=lambda one: (-len(one.left_out), margins[one]))  # one, if it suffices
            yield self._shown(record, alone, margins[alone], course)
        elif (found := self._by_strength(record, self.gain * course.span)) is not None:
            yield found
        elif not tried:
            off = record.facts.get("switched_off", {})
            raise NotChecked(f"not measured: {off.get('without_regulariser', 'the budget did not allow it')}")

    def _shown(self, record: RunRecord, best: Release, margin: float, course: LossCourse) -> Diagnosis:
        unseen = best.validation is None and record.memo(validation_curve) is None
        gain, guess = min(change.gain for change in best.changes), course.span
        usual = (self.gain if best.controlled else self.large) * guess
        least = min(usual, *(self.part * abs(c.before - course.floor) for c in best.changes))
        modest = "penalty" in best.left_out and gain < self.clear * guess
        return self.diagnose(
            without(best),
            severity=Severity.INFO if unseen or gain < least else self.severity,
            margin=MODEST if modest else min(self.errors + margin, 1e3),
            where=best.left_out,
            evidence=(*compared(best, guess, least, self.errors), *dropout_evidence(record)),
            remedies=tuple(r for name in best.left_out for r in loosened(record, name)),
        )

    def _by_strength(self, record: RunRecord, least: float) -> Diagnosis | None:
        """A regulariser that is hardly ever meant to be so strong, in a run that has come to rest far up."""
        strong = regularisers(record, self.strong_dropout, self.strong_decay, self.strong_penalty)
        causes = standing(record, strong, least)
        if not causes or (end := rest(record)).gone > self.held:
            return None
        if not (end.flat or end.falls_short_of(self.held) or any(c.slows for c in causes)):
            return None
        share = Evidence("share of a constant guess's loss that is gone", end.gone, self.held, end.best.stream)
        return self.diagnose(
            end.story + reason(causes, None),
            margin=min((self.held - end.gone) / max(end.gone_error, 1e-3), 1e3),
            where=tuple(cause.where for cause in causes),
            evidence=(share, *held_back(end.trends, causes), *dropout_evidence(record)),
            remedies=tuple(remedy(cause.remedy, **cause.numbers) for cause in causes),
        )

    def _margin(self, record: RunRecord, release: Release, course: LossCourse) -> float:
        """Standard errors by which the lesser gain is beyond the thresholds; not above 0 where it is no fault."""
        shown, guess = release.validation or release.training, course.span
        anyway = shown.anyway >= self.anyway and shown.gain < self.clear * guess
        learned = release.validation is None and memorised(record, release.training)
        if anyway or learned or shown.before - course.floor < (1 - self.learned) * guess:
            return float("-inf")
        least = (self.remark if release.controlled else self.large) * guess
        return min(beyond(c, guess, least, self.errors) for c in release.changes)
