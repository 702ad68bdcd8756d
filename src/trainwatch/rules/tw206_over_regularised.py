"""TW206: dropout, weight decay or a penalty keeps the network from what it could learn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.fit_remedies import loosened
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.experiments import Change, Release, releases, unpenalised
from trainwatch.symptoms.losses import loss_course, penalty_share
from trainwatch.symptoms.plateau import validation_trend

NAMES = {"dropout": "dropout", "weight_decay": "weight decay", "penalty": "the term that is added to the loss"}


@dataclass(frozen=True)
class OverRegularised(Rule):
    """Without dropout, weight decay or a penalty the network at once does better, on new samples as well.

    ## Symptom
    Less than `learned` of the loss of a constant guess is gone, and some steps without a regulariser take at least
    `gain` of that loss more off than the same steps with it, in training and in validation alike.

    ## Why it hurts
    A regulariser is to hold back what does not carry over to new samples. This one holds back what does.

    ## How it is measured
    `without_regulariser`, by a probe at the end: copies of the model take the same steps on the same held batches, as
    the run does and without it (weights that decay has pulled to nothing are drawn anew). The losses that are compared
    are those in evaluation mode of the same samples. What is gained must be beyond `errors` standard errors against the
    copy that goes on as it was and against the model at the end of the run; the former must not bring `anyway` of the
    fall. A term that is added to the criterion, and makes up `added` of what is backpropagated, is in none of the
    copies: further steps must then gain `penalised` of the loss of a constant guess. Where no validation batch is held,
    the run's own validation loss must not lie above that of training by more than half the gain; without any the
    finding is a remark.

    ## Remedies
    `less-dropout`, `weaker-regularisation`, `weaker-penalty`.

    ## Not a fault when
    Only training gets better: that is what a regulariser is for. The network is good already, or it would have got
    better as it is: the run is too short then (TW205).

    ## Sources
    §3; Goodfellow, Bengio and Courville 2016, "Deep Learning", chapter 7.
    """

    code: ClassVar[str] = "TW206"
    name: ClassVar[str] = "over-regularised"
    section: ClassVar[str] = "§3"
    needs: ClassVar[tuple[str, ...]] = ("train_loss",)
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(("TW203", "TW204", "TW205", "TW208"), always)

    learned: float = 0.8
    gain: float = 0.05
    errors: float = 2.5
    anyway: float = 0.5
    added: float = 0.05
    penalised: float = 0.2

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Steps without what regularises, where the loss is not low."""
        course = record.memo(loss_course)
        if course is not None and course.gained < self.learned and self._in_use(record):
            yield ProbeRequest("without_regulariser", (), "the loss is not low: does a regulariser keep it up?", 0.4)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the copies with and without each regulariser."""
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended")
        course, tried = record.memo(loss_course), self._tried(record)
        if course is None or not self._in_use(record) or course.gained >= self.learned:
            return
        if not tried:
            why = record.facts.get("switched_off", {}).get("without_regulariser", "the budget did not allow it")
            raise NotChecked(f"not measured: {why}")
        guess = abs(course.reference)
        margins = {release: self._margin(record, release, guess) for release in tried}
        guilty = [release for release, margin in margins.items() if margin > 0]
        if not guilty:
            return
        best = max(guilty, key=lambda release: (-len(release.left_out), margins[release]))  # one alone, if it suffices
        shown = best.validation or best.training
        what = " and ".join(NAMES[name] for name in best.left_out)
        unseen = best.validation is None and record.memo(validation_curve) is None
        kind = "validation" if best.validation else "training"
        yield self.diagnose(
            f"some steps without {what} bring the {kind} loss from {shown.before:.3g} to {shown.without:.3g}, the same "
            f"steps with it to {shown.control:.3g}",
            severity=Severity.INFO if unseen else self.severity,
            margin=min(self.errors + margins[best], 1e3),
            where=best.left_out,
            evidence=tuple(self._evidence(best, guess, what)),
            remedies=tuple(_remedies(record, best)),
        )

    def _in_use(self, record: RunRecord) -> bool:
        facts: Any = record.facts.get("regularisation") or {}
        return any(facts.get(name) for name in NAMES) or record.memo(penalty_share) >= self.added

    def _tried(self, record: RunRecord) -> list[Release]:
        further = record.memo(unpenalised) if record.memo(penalty_share) >= self.added else None
        return [*record.memo(releases), *([] if further is None else [further])]

    def _margin(self, record: RunRecord, release: Release, guess: float) -> float:
        """Standard errors by which the lesser gain is beyond the thresholds; not above 0 where it is no fault."""
        training, validation = release.training, release.validation
        shown = validation or training
        if shown.before < (1 - self.learned) * guess or shown.anyway >= self.anyway:
            return -np.inf
        if validation is None and (curve := record.memo(validation_curve)) is not None:
            trend = record.memo(validation_trend)
            level = trend.end if trend is not None else float(curve.mean[-1])
            if not curve.same_criterion or level > training.before + training.gain / 2:
                return -np.inf
        least = (self.penalised if release.left_out == ("penalty",) else self.gain) * guess
        return min(self._beyond(change, guess, least) for change in (training, validation) if change is not None)

    def _beyond(self, change: Change, guess: float, least: float) -> float:
        error = change.error
        if not np.isfinite(error):
            return -np.inf
        return (change.gain - max(least, self.errors * error)) / max(error, 1e-3 * guess)

    def _evidence(self, release: Release, guess: float, what: str) -> Iterator[Evidence]:
        for kind, change in (("validation", release.validation), ("training", release.training)):
            if change is None:
                yield Evidence(f"{kind} loss without {what}", note="not measured: no batch of it is held")
                continue
            note = f"{change.before:.3g} at the end of the run, {change.control:.3g} after as many steps as it is"
            gained = f"{change.gain / guess:.0%} of the loss of a constant guess; standard error {change.error:.2g}"
            yield Evidence(f"{kind} loss without {what}", change.without, step=release.step, note=note)
            threshold = max(self.gain * guess, self.errors * change.error)
            yield Evidence(f"gain in {kind}", change.gain, threshold, step=release.step, note=gained)


def _remedies(record: RunRecord, release: Release) -> Iterator[Remedy]:
    for name in release.left_out:
        yield from loosened(record, name)
