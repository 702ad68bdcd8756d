"""TW202: the validation loss rises while accuracy holds: the network is too sure of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import Predicate, always
from trainwatch.rules.fit_remedies import label_smoothing, stronger_regularisation
from trainwatch.rules.rising_validation import RisingValidation, best_weights_are_back, early_stopping, ranked
from trainwatch.symptoms.classes import binary_scores, temperature


@dataclass(frozen=True)
class Overconfidence(RisingValidation):
    """The validation loss rises from its minimum while accuracy stays where it was.

    ## Symptom
    The validation loss has risen by more than `min_rise` of the drop before it, by more than `of_left` of what was left
    at its minimum, and by more than `min_errors` standard errors (`fewer_errors` of a rise by `clear_rise` where
    training loss is below `apart` of it and the noise of passes does not account for it), training loss has not, and
    accuracy is at most `accuracy_slack` below that around the lowest loss.

    ## Why it hurts
    The arg-max is as good as ever, but the probabilities are not: the few wrong answers are given with ever more
    certainty. Thresholds, costs, rankings across models and anything that reads probabilities suffer. Where more
    samples would help (TW207), which is more than that, they are named first.

    ## How it is measured
    The rise as for TW201, with at least `min_after` passes since the minimum; accuracy as the mean over the last
    passes against the mean over the passes around the minimum.

    ## Remedies
    Label smoothing, a temperature fitted on validation data, early stopping, stronger regularisation.

    ## Not a fault when
    Only the arg-max is ever used. Accuracy falls as well: that is overfitting (TW201). The best weights are loaded
    again at the end: a remark then.

    ## Sources
    §2; Guo et al., "On Calibration of Modern Neural Networks" (2017).
    """

    code = "TW202"
    name = "overconfidence"
    section = "§2"
    explains: ClassVar[dict[str, Predicate]] = {"TW203": always, "TW503": always, "TW504": always}
    after: ClassVar[frozenset[str]] = frozenset({"TW207"})

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        found = self.risen(record)
        if found is None or found.accuracy is None or found.accuracy_fell(self.accuracy_slack):
            return
        rise, (then, now) = found.rise, found.accuracy
        scores = record.memo(binary_scores)
        fitted = f"{temperature(*scores):.2f}, on {len(scores[0])} validation samples" if scores else "not measured"
        yield self.diagnose(
            f"validation loss rose from {rise.minimum:.4g} about step {rise.best_step} to {rise.end:.4g} "
            f"while accuracy went from {then:.1%} to {now:.1%}",
            severity=Severity.INFO if best_weights_are_back(record) else self.severity,
            margin=found.margin,
            where=(found.curve.stream,),
            onset_step=rise.best_step,
            evidence=self.evidence(found),
            remedies=ranked(
                [
                    remedy("temperature", measured=fitted),
                    label_smoothing(record),
                    early_stopping(record, found.curve, found.rise),
                    stronger_regularisation(record),
                ]
            ),
        )
