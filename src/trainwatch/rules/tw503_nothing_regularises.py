"""TW503: the network learns its training set by heart, and nothing that regularises was seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.dropout_remedies import dropout, dropout_evidence
from trainwatch.rules.effect_evidence import stability, weights
from trainwatch.rules.fit_remedies import adversarial, normalisation, per_sample, sizes, stronger_regularisation
from trainwatch.rules.rising_validation import Risen, RisingValidation, early_stopping, ranked
from trainwatch.symptoms.inventory import inventory


@dataclass(frozen=True)
class NothingRegularises(RisingValidation):
    """Validation gets worse while training gets better, without decay, dropout, augmentation or the like.

    ## Symptom
    The validation loss rises from its minimum as TW201 and TW202 ask (`min_rise`, `of_left`, `min_errors`,
    `fewer_errors`, `clear_rise`, `apart`, `min_after` and `accuracy_slack` as there), and of all kinds of
    regularisation none is in use. This is a remark, below theirs.

    ## Why it hurts
    Nothing but the data limits how complex a function the network may become, and it has parameters enough to follow
    single samples.

    ## How it is measured
    The inventory is read from model, optimiser, trainer, loader and loss: weight decay, L1 and L2 terms and
    `trainwatch.prox`, dropout, normalisation, augmentation, early stopping, label smoothing. What it is to prevent is
    measured: the gap between training and validation, how far weights have grown, how many are zero, what small changes
    of the inputs do to the output (`small_changes`), how many predictions change from pass to pass (`val_churn`), and
    how alike hidden units are (`co_adaptation`).

    ## Remedies
    `stronger-regularisation` (with what speaks for L1 or L2), `dropout`, `augment`, `early-stopping`, `normalisation`
    where gradients change over depth, `adversarial-training`.

    ## Not a fault when
    A loop of one's own regularises in a way that leaves no trace: it stops by hand, or changes inputs before the model
    gets them.

    ## Sources
    §4 §15; Goodfellow et al. 2016, "Deep Learning", chapter 7.
    """

    code: ClassVar[str] = "TW503"
    name: ClassVar[str] = "nothing-regularises"
    severity: ClassVar[Severity] = Severity.INFO
    section: ClassVar[str] = "§4 §15"

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Look for a regulariser where validation got worse."""
        found = self.risen(record)
        if found is None or record.memo(inventory):
            return
        samples, parameters = sizes(record)
        counted = f", with {per_sample(parameters, samples)}" if samples and parameters else ""
        yield self.diagnose(
            f"nothing that regularises was seen, and validation loss rose by {found.rise.rise:.3g}{counted}",
            margin=found.margin,
            onset_step=found.rise.best_step,
            where=(found.curve.stream,),
            evidence=tuple(_effects(record, found)),
            remedies=ranked(
                [
                    stronger_regularisation(record),
                    dropout(record),
                    remedy("augment", samples=samples or "few"),
                    early_stopping(record, found.curve, found.rise),
                    *normalisation(record),
                    *adversarial(record),
                ]
            ),
        )


def _effects(record: RunRecord, found: Risen) -> Iterator[Evidence]:
    """What a regulariser acts on, as it stands without one."""
    now, step = found.training[1], int(found.curve.steps[-1])
    if found.curve.same_criterion:
        yield Evidence("validation loss above training loss", found.rise.end - now, step=step)
    yield from weights(record)
    yield from stability(record)
    yield from dropout_evidence(record)
