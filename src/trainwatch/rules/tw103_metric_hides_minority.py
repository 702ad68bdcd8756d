"""TW103: accuracy looks fine while a rare class is hardly ever found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, no_remark
from trainwatch.rules.tw104_threshold_off_best import CAUSES
from trainwatch.symptoms.classes import share_bounds
from trainwatch.symptoms.recognition import Recognition, recognitions, reported

SHOWN = 5


@dataclass(frozen=True)
class MetricHidesMinority(Rule):
    """Accuracy looks fine, and most samples of a rare class or label are missed.

    ## Symptom
    Accuracy in validation is `looks_fine` or more, while of a class with at most 1 / `ratio` of the samples of the
    largest one, or of a label that as few samples have, less than `found` is recognised.

    ## Why it hurts
    Where one answer is right nearly always, giving it always looks like success. What the rare class is looked for is
    not done, and early stopping or a choice among models by this metric does not notice.

    ## How it is measured
    From the confusion matrices of the last `min_passes` validation passes, all of which must agree; of several labels
    from the scores of the last pass, cut at 0.5. A class counts as missed where the upper Clopper-Pearson bound of its
    recall (97.5 %, widened for the number of rare classes) lies below `found`. The accuracy is what the loop or the
    trainer reports under such a name where that is higher, else that of the validation passes.

    ## Remedies
    `better-metric`, with the values that fair metrics have on this run.

    ## Not a fault when
    A fair metric (F1, recall, balanced accuracy, area under a curve, MCC) is logged already: it shows what is missed.
    Tokens of a language model are uneven by nature. Why the class is missed is told by TW101, TW102 and TW104.

    ## Sources
    §1; Clopper and Pearson, "The use of confidence or fiducial limits" (1934).
    """

    code = "TW103"
    name = "metric-hides-minority"
    section = "§1"
    needs = ("val_loss",)
    explained_by: ClassVar[dict[str, Predicate]] = dict.fromkeys((*CAUSES, "TW104"), no_remark)

    looks_fine: float = 0.8
    ratio: float = 3.0
    found: float = 0.5
    min_passes: int = 2

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if record.facts.get("task") == "language-model":
            raise NotChecked("tokens of a language model are uneven by nature")
        seen = record.memo(recognitions)
        if not seen:
            raise NotChecked("no validation predictions over classes or labels were seen")
        several = record.facts.get("task") == "multilabel"
        if len(seen) < self.min_passes and not several:
            raise NotChecked(f"{len(seen)} validation pass with predictions; judged from {self.min_passes} on")
        logged, last = record.memo(reported), seen[-1]
        if logged.fair:
            return
        name, value = max(logged.accuracies.items(), key=lambda one: one[1], default=("accuracy", last.accuracy))
        told = [r for r in seen[-self.min_passes :] if max(r.accuracy, value) >= self.looks_fine]
        missed = [set(self._missed(r)) for r in told]
        if len(told) < min(self.min_passes, len(seen)) or not set.intersection(*missed):
            return
        worst = sorted(set.intersection(*missed), key=lambda i: last.hits[i] / last.totals[i])
        first = worst[0]
        bound, recall = self._bound(last, first), float(last.hits[first] / last.totals[first])
        more = f" and of {len(worst) - 1} more" if len(worst) > 1 else ""
        yield self.diagnose(
            f"{name} is {max(value, last.accuracy):.3f} and the same answer for all would have {last.constant:.3f}, "
            f"while of {last.names[first]}{more} only {last.hits[first]:.0f} of {last.totals[first]:.0f} are found",
            margin=(self.found - recall) / max((bound - recall) / 1.96, 1e-9),
            where=tuple(last.names[i] for i in worst),
            onset_step=self._onset(seen, first),
            evidence=tuple(self._evidence(last, worst, name, max(value, last.accuracy))),
            remedies=(
                remedy(
                    "better-metric",
                    accuracy=last.accuracy,
                    majority=last.constant,
                    balanced=last.balanced,
                    macro_f1=last.macro_f1,
                    mcc=last.mcc,
                    pr_auc="not measured" if last.pr_auc is None else f"{last.pr_auc:.3f}",
                ),
            ),
        )

    def _missed(self, seen: Recognition) -> list[int]:
        return [int(i) for i in self._rare(seen) if self._bound(seen, i) < self.found]

    def _rare(self, seen: Recognition) -> list[int]:
        return np.flatnonzero((seen.totals > 0) & (seen.totals * self.ratio <= seen.others)).tolist()

    def _bound(self, seen: Recognition, index: int) -> float:
        level = 1 - 0.05 / max(1, len(self._rare(seen)))
        return share_bounds(float(seen.hits[index]), float(seen.totals[index]), level)[1]

    def _onset(self, seen: list[Recognition], index: int) -> int:
        """First pass from which on the class is missed in every pass."""
        missed = [index in self._missed(r) for r in seen]
        return seen[len(missed) - [*missed[::-1], False].index(False)].step

    def _evidence(self, last: Recognition, worst: list[int], name: str, value: float) -> Iterator[Evidence]:
        step, constant = last.step, f"the same answer for all has {last.constant:.3f}"
        yield Evidence(name, value, self.looks_fine, step=step, note=constant)
        for i in worst[:SHOWN]:
            note = f"{last.hits[i]:.0f} of {last.totals[i]:.0f} found; upper bound {self._bound(last, i):.3f}"
            recall = float(last.hits[i] / last.totals[i])
            yield Evidence("recall", recall, self.found, where=last.names[i], step=step, note=note)
        yield Evidence("balanced accuracy", last.balanced, step=step)
        yield Evidence("macro-F1", last.macro_f1, step=step)
        yield Evidence("MCC", last.mcc, step=step, note="0 is no better than chance")
