"""TW710: not even a single batch can be learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, always
from trainwatch.symptoms.experiments import OneBatch, one_batch
from trainwatch.symptoms.losses import LossCourse, loss_course
from trainwatch.symptoms.subject import before_training

STEPS = 40  # of each fit
CAUSES = ("TW107", "TW108", "TW303", "TW304", "TW305", "TW309", "TW703", "TW705", "TW706", "TW707", "TW711")


@dataclass(frozen=True)
class BatchNotFitted(Rule):
    """Shown one batch over and over, the net does not learn it.

    ## Symptom
    Before training, neither 40 steps of the run's optimiser nor 40 of Adam, without dropout and decay, on one batch
    take away `fitted` of its loss (of that of a constant guess, where it began above). A remark where Adam does it and
    the run's optimiser takes away less than `moved` of what Adam does.

    ## Why it hurts
    A net that cannot learn a handful of samples by heart will not learn thousands: something between input, loss and
    weights is cut, constant or out of scale. More data and more epochs do not mend it.

    ## How it is measured
    `one_batch_fit`: the loss of the batch in evaluation mode, before and after. Sound nets of the zoo lose 7 % and
    more, most of them more than half.

    ## Remedies
    `what-blocks-the-fit`; for the remark `rate-that-fits-a-batch`.

    ## Not a fault when
    The batch contradicts itself: equal inputs with different targets. The rate begins small on purpose, as in a warm-up
    (the remark).

    ## Sources
    §3; Karpathy, "A recipe for training neural networks" (2019): "overfit one batch".
    """

    code: ClassVar[str] = "TW710"
    name: ClassVar[str] = "batch-not-fitted"
    section: ClassVar[str] = "§3"
    at_first_look: ClassVar[bool] = True
    explained_by: ClassVar[dict[str, Predicate]] = dict.fromkeys(CAUSES, always)

    fitted: float = 0.02
    moved: float = 0.05

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if not before_training(record):
            return
        fit, course = record.memo(one_batch), record.memo(loss_course)
        if fit is None or course is None:
            off = record.facts.get("switched_off", {})
            raise NotChecked(off.get("one_batch_fit", "no batch was tried"))
        own, reference = (_share(fit, course, level) for level in (fit.own, fit.reference))
        if max(own, reference) < self.fitted:
            what = f"one batch is not learned: {STEPS} steps take its loss from {fit.before:.3g} to {_least(fit):.3g}"
            advice = remedy("what-blocks-the-fit", before=f"{fit.before:.3g}", after=f"{_least(fit):.3g}", steps=STEPS)
            yield self._found(fit, course, what, own, reference, self.severity, advice)
        elif fit.before - fit.own < self.moved * (fit.before - fit.reference):
            rates = _rates(record)
            what = (
                f"{STEPS} steps of the optimiser at a rate of {rates} leave the loss of one batch at {fit.own:.3g}, "
                f"as many of Adam bring it from {fit.before:.3g} to {fit.reference:.3g}"
            )
            advice = remedy(
                "rate-that-fits-a-batch", rate=rates, own=f"{fit.own:.3g}", reference=f"{fit.reference:.3g}"
            )
            yield self._found(fit, course, what, own, reference, Severity.INFO, advice)

    def _found(self, fit: OneBatch, course: LossCourse, what: str, own: float, reference: float, severity: Severity,
               advice: object) -> Diagnosis:  # fmt: skip
        chance = None if course.chance is None else f"a constant guess costs {course.chance:.3g}"
        return self.diagnose(
            what,
            severity=severity,
            margin=float("inf"),
            where=("model",),
            onset_step=0,
            evidence=(
                Evidence("share of the loss of one batch that the run's steps remove", own, self.fitted,
                         note=f"{fit.before:.4g} to {fit.own:.4g} on {fit.samples} samples"),
                Evidence("share that Adam removes, without dropout and decay", reference, self.fitted,
                         note=f"{fit.before:.4g} to {fit.reference:.4g}{f'; {chance}' if chance else ''}"),
            ),
            remedies=(advice,),
        )  # fmt: skip


def _share(fit: OneBatch, course: LossCourse, level: float) -> float:
    """Share of what there is to learn of the batch that a level has learned; minus infinity where it is not finite."""
    start = fit.before if course.chance is None else min(fit.before, course.chance)
    if not np.isfinite(level):
        return -np.inf
    return float((start - level) / max(abs(start - course.floor), 1e-30))


def _least(fit: OneBatch) -> float:
    return float(np.nanmin([fit.own, fit.reference, fit.before]))


def _rates(record: RunRecord) -> str:
    known = [g["lr"] for o in record.facts.get("optimizers", {}).values() for g in o["groups"] if "lr" in g]
    return f"{max(known):.3g}" if known else "unknown size"
