"""TW104: the scores are good, yet 0.5 is the wrong place to cut them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, Rule, no_remark
from trainwatch.rules.threshold_remedies import label_names, positive_rates, threshold_remedy
from trainwatch.symptoms.balance import sampler_in_use, weights_in_use
from trainwatch.symptoms.classes import label_scores
from trainwatch.symptoms.thresholds import Gain, PrecisionRecall, out_of_bag, precision_recall

SHOWN = 5
# Whatever spoils a training spoils where its scores are cut, too, and is to be mended first.
CAUSES = (
    "TW101", "TW102", "TW105", "TW107", "TW204", "TW206", "TW208", "TW301", "TW302", "TW303", "TW304", "TW305", "TW306",
    "TW307", "TW308", "TW309", "TW401", "TW402", "TW403", "TW601", "TW602", "TW603", "TW604", "TW701", "TW702", "TW703",
    "TW704", "TW705", "TW706",
)  # fmt: skip


@dataclass(frozen=True)
class ThresholdOffBest(Rule):
    """Another threshold than 0.5 gives a clearly higher F1.

    ## Symptom
    For a yes / no label, cutting the validation scores elsewhere gives an F1 that is higher by `min_gain` or more, and
    by more than `min_errors` standard errors, and that is good: of the way from naming every sample to an F1 of 1 it
    goes `skill` or more.

    ## Why it hurts
    The network ranks the samples well, but what is read off its scores misses positives that it knows, or names many
    that it does not mean. No further training is needed to have them right.

    ## How it is measured
    At the end of the run, on the scores of the last validation pass, for labels with `min_positives` positives and as
    many negatives. The threshold with the highest F1 is chosen on samples drawn with replacement and scored on those
    that were not drawn, 200 times, beside 0.5 and beside naming every sample, whichever is better: on the samples that
    it was chosen on a threshold always seems to gain. With several labels the errors are widened for their number.
    Labels are judged at an F1 of the positives, class 1 where there are two. Thresholds for a precision and for a
    recall of `wanted` are given as well.

    ## Remedies
    `move-threshold`; where class weights or a weighted sampler have moved the scores, `retune-weights`: both together
    would correct twice.

    ## Not a fault when
    Accuracy or the ranking alone matters, or a cost of its own sets the threshold. Several classes take the arg-max.
    Scores that are calibrated have their best F1 at half of that F1: on a hard task a low threshold gains by nature,
    and hides that the scores themselves are poor.

    ## Sources
    §7; Lipton, Elkan and Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure" (2014); Efron and
    Tibshirani, "An Introduction to the Bootstrap" (1993).
    """

    code = "TW104"
    name = "threshold-off-best"
    section = "§7"
    needs = ("val_scores",)
    explained_by: ClassVar[dict[str, Predicate]] = dict.fromkeys(CAUSES, no_remark)

    min_gain: float = 0.05
    min_errors: float = 2.0
    skill: float = 0.3
    min_positives: int = 30
    wanted: float = 0.9

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended")
        scores = record.memo(label_scores)
        curves = [c for c in record.memo(precision_recall) if self._enough(c)]
        if scores is None or not curves:
            raise NotChecked(f"no label has {self.min_positives} positives and as many negatives in validation")
        labels = scores[1].shape[1]
        wider = 1 + np.log(len(curves)) / self.min_errors**2  # close to Bonferroni's quantile for that many looks
        # On the samples that a threshold is chosen on it gains most: what is not of note there need not be resampled.
        tried = [c for c in curves if self._of_note(c)]
        gains = [(c, out_of_bag(c)) for c in tried]
        found = [(c, g) for c, g in gains if g.value > max(self.min_gain, self.min_errors * wider * g.error)]
        if not found:
            return
        found.sort(key=lambda one: -one[1].value)
        names = label_names(record, labels)
        first, gain = found[0]
        more = f"; {len(found) - 1} more of {len(curves)} labels" if len(found) > 1 else ""
        moved = threshold_remedy(record, labels, [c for c, _ in found])
        yield self.diagnose(
            f"{names[first.label]}: F1 is {first.f1[first.half]:.3f} at a threshold of 0.5 and "
            f"{first.f1[first.best]:.3f} at {first.probability(first.best):.3g}; on samples that it was not chosen on "
            f"it gains {gain.value:.3f}{more}",
            margin=(gain.value - self.min_gain) / max(gain.error * wider, 1e-9),
            where=tuple(names[c.label] for c, _ in found),
            onset_step=first.step,
            evidence=tuple(self._evidence(record, labels, found)),
            remedies=() if moved is None else (moved,),
        )

    def _enough(self, curve: PrecisionRecall) -> bool:
        return min(curve.positives, len(curve.targets) - curve.positives) >= self.min_positives

    def _of_note(self, curve: PrecisionRecall) -> bool:
        best, half, every = curve.f1[curve.best], curve.f1[curve.half], curve.f1[-1]
        return bool(best - max(half, every) >= self.min_gain and best - every >= self.skill * (1 - every))

    def _evidence(
        self, record: RunRecord, labels: int, found: list[tuple[PrecisionRecall, Gain]]
    ) -> Iterator[Evidence]:
        names, rates = label_names(record, labels), positive_rates(record, labels)
        moved = weights_in_use(record) or sampler_in_use(record)
        for curve, gain in found[:SHOWN]:
            name, step, best = names[curve.label], curve.step, curve.best
            low, high = gain.value - 1.96 * gain.error, gain.value + 1.96 * gain.error
            note = (
                f"95 % interval {low:.3f} to {high:.3f}; out of bag F1 {gain.f1:.3f} after {gain.before:.3f}; "
                f"{curve.positives} positives of {len(curve.targets)}"
            )
            yield Evidence("gain in F1, out of bag", gain.value, self.min_gain, where=name, step=step, note=note)
            share = "" if rates is None else f"; the share of positives in training is {rates[curve.label]:.3g}"
            half = f"calibrated scores would have it at half of their F1, {curve.f1[best] / 2:.3g}"
            tilt = "; weights or a sampler have moved the scores" if moved else ""
            yield Evidence(
                "best threshold", curve.probability(best), 0.5, where=name, step=step, note=half + share + tilt
            )
            for wanted, index, other in (
                ("precision", curve.at_precision(self.wanted), curve.recall),
                ("recall", curve.at_recall(self.wanted), curve.precision),
            ):
                told = "recall" if wanted == "precision" else "precision"
                yield Evidence(
                    f"threshold for a {wanted} of {self.wanted:g}",
                    None if index is None else curve.probability(index),
                    where=name,
                    step=step,
                    note="not reached" if index is None else f"{told} is {other[index]:.3f} there",
                )
