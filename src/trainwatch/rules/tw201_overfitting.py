"""TW201: the network goes on learning its training set at the expense of all others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, always
from trainwatch.rules.dropout_remedies import dropout, dropout_evidence
from trainwatch.rules.effect_evidence import stability
from trainwatch.rules.fit_remedies import adversarial, per_sample, sizes, stronger_regularisation
from trainwatch.rules.rising_validation import Risen, RisingValidation, best_weights_are_back, early_stopping, ranked
from trainwatch.rules.robust_loss import far_targets, heavy_tails, robust_loss
from trainwatch.rules.suspects import clean_data
from trainwatch.symptoms.inventory import inventory
from trainwatch.symptoms.useful_motion import weight_ranks

SHOWN = 4


@dataclass(frozen=True)
class Overfitting(RisingValidation):
    """The validation loss rises from its minimum while the training loss keeps falling.

    ## Symptom
    The loss of the primary validation stream has risen by more than `min_rise` of the drop before it, by more than
    `of_left` of what was left at its minimum, and by more than `min_errors` standard errors (`fewer_errors` of a rise
    by `clear_rise` where training loss is below `apart` of it and the noise of passes does not account for it).
    Training loss fell meanwhile or lies below validation, and did not rise by half as much. Accuracy fell by more than
    `accuracy_slack`, or is not recorded.

    ## Why it hurts
    The network now fits what is particular to its training samples, noise included. Every further step makes it worse
    on new data, and the last weights are not the best ones.

    ## How it is measured
    At least `min_after` passes follow the minimum. "Now" is the median of the last passes. The noise between passes is
    taken from second differences and from the residuals of a fall-then-rise fit; a curve under that noise which never
    rises shows what "last minus lowest" gives by selection alone, and that is subtracted. Samples are resampled in
    pairs, so that a validation set which is hard as a whole adds no error. The drop is that from the first loss seen,
    or that of chance, to the minimum, and at least the minimum itself.

    ## Remedies
    Early stopping, more data, augmentation, stronger regularisation, dropout, a smaller network, cleaner labels,
    averaging; a larger learning rate and adversarial training are supported weakly.

    ## Not a fault when
    Accuracy holds: that is over-confidence (TW202). The weights of the best pass are loaded again at the end: a
    remark then. Training loss rises too: that is divergence.

    ## Sources
    §2; Prechelt, "Early stopping - but when?" (1998).
    """

    code = "TW201"
    name = "overfitting"
    section = "§2"
    explains: ClassVar[dict[str, Predicate]] = {"TW203": always, "TW503": always, "TW504": always}

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Where it overfits: besides what its base asks, how far its layers could shrink."""
        yield from super().asks(record)
        with suppress(NotChecked):
            if self.rise(record) is not None:
                yield ProbeRequest("rank", (), "the net overfits: how far could its layers shrink?", 0.3)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        found = self.risen(record)
        if found is None or not found.accuracy_fell(self.accuracy_slack):
            return
        rise, (then, now) = found.rise, found.training
        samples, parameters = sizes(record)
        counted = Evidence("parameters per training sample", note="not measured: one of the two is unknown")
        if samples and parameters:
            counted = Evidence(counted.name, parameters / samples, note=f"{parameters} for {samples} samples")
        yield self.diagnose(
            f"validation loss rose from {rise.minimum:.4g} about step {rise.best_step} to {rise.end:.4g} "
            f"while training loss went from {then:.4g} to {now:.4g}",
            severity=Severity.INFO if best_weights_are_back(record) else self.severity,
            margin=found.margin,
            where=(found.curve.stream,),
            onset_step=rise.best_step,
            evidence=(
                *self.evidence(found),
                counted,
                *stability(record),
                *dropout_evidence(record),
                *heavy_tails(record)[0],
            ),
            remedies=_remedies(record, found),
        )


def _remedies(record: RunRecord, found: Risen) -> tuple[Remedy, ...]:
    samples, parameters = sizes(record)
    ratio = per_sample(parameters, samples) if samples and parameters else "few samples"
    first = [robust_loss(record)] if far_targets(record) else []  # it learns them by heart
    usual = [
        early_stopping(record, found.curve, found.rise),
        remedy("more-data", ratio=ratio),
        remedy("augment", already_in_use="augmentation" in record.memo(inventory), samples=samples or "few"),
        stronger_regularisation(record),
        dropout(record),
        remedy(
            "smaller-model",
            parameters=parameters or "unknown number of",
            ratio=ratio,
            ranks=_effective_ranks(record),
        ),
        clean_data(record),
        *([] if first else heavy_tails(record)[1]),
        remedy("ensemble", best_step=found.rise.best_step),
        remedy("raise-learning-rate"),
        *adversarial(record),
    ]
    return (*first, *ranked(usual))


def _effective_ranks(record: RunRecord) -> str:
    """The widest layers with the share of their rank that carries most of their weight, in words."""
    ranks = sorted(record.memo(weight_ranks), key=lambda found: -found[2])[:SHOWN]
    named = ", ".join(f"{kept} of {whole} in '{p['module'] or 'model'}'" for p, kept, whole in ranks)
    return f"90 % of its weights' energy lies in {named} directions" if ranks else "not measured"
