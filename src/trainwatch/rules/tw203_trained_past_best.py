"""TW203: the run went on past its best weights and ended with worse ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked
from trainwatch.rules.rising_validation import RisingValidation, best_weights_are_back, early_stopping
from trainwatch.symptoms.curves import validation_curve


@dataclass(frozen=True)
class TrainedPastBest(RisingValidation):
    """Validation was best well before the end, and the weights that the run ended with are worse.

    ## Symptom
    The validation loss at the end is above its minimum by more than `min_rise` of the drop before it, `of_left` of what
    was left there, and `min_errors` standard errors (or `fewer_errors`, `clear_rise` and `apart`, as TW201 has it). A
    warning where the training loss got worse as well; where it did not, that is TW201's or TW202's to say and this is a
    remark about the steps spent in vain. With `accuracy_slack` they tell those two apart.

    ## Why it hurts
    The last weights are those that are used. Better ones were there and are lost, and with them the time since.

    ## How it is measured
    As for TW201, paired by sample and with the selection of the minimum taken off, with at least `min_after` passes
    after it; whatever the training loss does.

    ## Remedies
    `early-stopping` and restoring the best weights; `lower-final-rate` where training got worse too.

    ## Not a fault when
    Weights were loaded into the model at the end: the best ones are taken to be back.

    ## Sources
    §15; Prechelt, "Early stopping - but when?" (1998).
    """

    code: ClassVar[str] = "TW203"
    name: ClassVar[str] = "trained-past-best"
    section: ClassVar[str] = "§15"
    needs: ClassVar[tuple[str, ...]] = ("val_loss",)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the last validation passes with the best."""
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended")
        if best_weights_are_back(record):
            return
        found = self.rise(record)
        if found is None:
            return
        rise, reference, margin = found
        curve = record.memo(validation_curve)
        assert curve is not None
        # TW201 or TW202 speaks: it is the same rise.
        fits = record.has("train_loss") and self.risen(record) is not None
        last = int(curve.steps[-1])
        spent = 1 - rise.best_step / max(last, 1)
        yield self.diagnose(
            f"validation loss was best about step {rise.best_step}, at {rise.minimum:.4g}; {spent:.0%} of the steps "
            f"came after it, and it ended at {rise.end:.4g}",
            severity=Severity.INFO if fits else Severity.WARNING,
            margin=margin,
            where=(curve.stream,),
            onset_step=rise.best_step,
            evidence=(
                Evidence(
                    "rise of the validation loss above its minimum",
                    rise.rise,
                    threshold=self.least(curve, rise, reference),
                    where=curve.stream,
                    step=last,
                    note=f"standard error {rise.error:.2g}",
                ),
                Evidence("share of the steps after the best pass", spent, step=rise.best_step),
            ),
            remedies=(
                early_stopping(record, curve, rise),
                *(() if fits else (remedy("lower-final-rate", best_step=rise.best_step),)),
            ),
        )
