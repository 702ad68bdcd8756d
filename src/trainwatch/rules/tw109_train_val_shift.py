"""TW109: validation samples are not what the network was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, no_remark
from trainwatch.rules.shift_evidence import losses_apart, once_aligned, prepared_otherwise, shift_remedies, told_apart
from trainwatch.rules.shifted_classes import LABELS, named_otherwise, shared_otherwise
from trainwatch.symptoms.experiments import evaluated
from trainwatch.symptoms.renamed_classes import Renamed, renamed_classes
from trainwatch.symptoms.scaled_otherwise import scaled_otherwise
from trainwatch.symptoms.shift import InputShift, class_shift, input_shift, not_comparable
from trainwatch.symptoms.subject import before_training, is_of_data

EFFECTS = ("TW101", "TW102", "TW103", "TW104", "TW201", "TW202", "TW203", "TW204", "TW205", "TW206", "TW208")


def of_names(cause: Diagnosis, effect: Diagnosis) -> bool:
    """Predicate: validation names classes otherwise, so its labels look wrong and more samples seem to be wanted."""
    return cause.where == LABELS


OF_NAMES = {"TW106": of_names, "TW207": of_names}


@dataclass(frozen=True)
class TrainValShift(Rule):
    """Training and validation samples come from different places.

    ## Symptom
    Within classes, validation inputs can be told from training inputs, by an area under the ROC curve whose lower bound
    is above `apart`; they lie further from training samples than those from one another, by one above `further`; and
    the network does worse on them. Or they are scaled otherwise, `differs` times wider or narrower. Or more than
    `unseen` of the validation samples are of classes that were never trained on. Or inputs are
    from the same place, but with its classes renamed validation would agree with the network in `renamed` more, beyond
    `sure` standard errors.

    ## Why it hurts
    The network is asked for what it was not taught, and a gap that looks like overfitting is none: no regularisation
    closes it. Where validation is not like the data of use, it also chooses the wrong model.

    ## How it is measured
    At the end of a run trees vote on whether a held sample that they have not seen is of training or of validation, and
    its fifth nearest training sample is looked for (`held_shift`). Both are compared within classes, so that shares of
    classes do not count. The network does worse where its validation loss is above its training loss, both in
    evaluation mode, by `errors` standard errors (`evaluated_loss`). Told apart without being further away or without
    harm it is a remark, from `remark` on: augmented training samples are wider spread than validation samples, not
    elsewhere. Scales are those of nine in ten entries, as the first batches and validation passes have them
    (`input_stats`); validation loss must be above training loss. Shares of the classes are compared by a chi-squared
    test over all targets; they are remarked on from a total variation of `shares` on, at a chance below `chance`.
    Classes are renamed to what the network calls most of each in the last validation pass, if no two come to the same.
    Before training (`trainwatch.audit`) there is no network whose harm could be measured: inputs told apart from
    `remark` on that lie further away are a warning.

    ## Remedies
    `same-preparation` and `split-anew`; the latter first where a forest tells inputs apart, by more than `aligned`,
    that were moved and scaled to the same mean and deviation in each feature (`shift_aligned`). `same-class-numbers`.

    ## Not a fault when
    The split is meant to be hard: the latest months, other patients, another camera. The classes were resampled for
    training on purpose.

    ## Sources
    §10; Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests" (2017); DeLong et al. (1988) on the error.
    """

    code: ClassVar[str] = "TW109"
    name: ClassVar[str] = "train-val-shift"
    section: ClassVar[str] = "§10"
    needs: ClassVar[tuple[str, ...]] = ()  # of a run its validation, of data both parts
    explains: ClassVar[dict[str, Predicate]] = {**dict.fromkeys(EFFECTS, no_remark), **OF_NAMES}

    apart: float = 0.6
    further: float = 0.55
    remark: float = 0.7
    errors: float = 2.0
    differs: float = 3.0
    aligned: float = 0.6
    unseen: float = 0.05
    renamed: float = 0.3
    sure: float = 3.0
    shares: float = 0.1
    chance: float = 1e-3

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """A look at the held samples of both kinds."""
        if record.has("val_loss"):
            yield ProbeRequest("shift", (), "is validation like training?", 0.62)
            yield ProbeRequest("train_eval", (), "does the network do worse in validation?", 0.63)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        scaled, why = record.memo(scaled_otherwise), not_comparable(record)
        inputs = None if why else record.memo(input_shift)
        whole = record.facts.get("run", {}).get("finished") and not before_training(record)
        shift, renamed = (record.memo(class_shift), self._renamed(record)) if whole else (None, None)
        found = list(self._inputs(record, inputs)) if inputs is not None and inputs.told.low > self.apart else []
        if otherwise := scaled is not None and scaled.ratio > self.differs:
            found = [self.diagnose(**prepared_otherwise(scaled, self.differs))]
        if any(d.severity >= Severity.WARNING for d in found):
            renamed = None  # what lies where others lay in training looks as if it had their name
        yield from found
        if renamed is not None:
            yield self.diagnose(**named_otherwise(record, renamed, self.renamed, self.sure))
        elif shift is not None and (
            shift.unseen > self.unseen or (shift.distance > self.shares and shift.chance < self.chance)
        ):
            yield self.diagnose(**shared_otherwise(record, shift, self.unseen, self.shares))
        if inputs is None and not otherwise and renamed is None and (why or shift is None or is_of_data(record)):
            raise NotChecked(f"not measured: {why}" if why else "neither inputs nor classes of both training and "
                             "validation are known")  # fmt: skip

    def _renamed(self, record: RunRecord) -> Renamed | None:
        found = record.memo(renamed_classes)
        return found if found is not None and found.gain > self.renamed + self.sure * found.error else None

    def _inputs(self, record: RunRecord, found: InputShift) -> Iterator[Diagnosis]:
        look, worse, of_data = record.memo(evaluated), 0.0, is_of_data(record)
        if look is not None:
            error = float(np.hypot(look.training_error, look.validation_error))
            worse = float(look.validation - look.training) / error if error > 0 else 0.0
        harmed = found.told.low > self.remark if of_data else worse > self.errors
        elsewhere = found.further.low > self.further and harmed
        if not elsewhere and found.told.low <= self.remark:
            return
        told = ("and lie further off" if of_data else "and the network does worse there") if elsewhere else (
            "though they are no further off than those from one another: augmentation does that"
            if found.further.low <= self.further
            else "though the network does no worse there"
        )  # fmt: skip
        yield self.diagnose(
            f"validation inputs can be told from training inputs of the same class (AUC {found.told.auc:.2f}, at least "
            f"{found.told.low:.2f}), {told}",
            severity=Severity.WARNING if elsewhere else Severity.INFO,
            margin=(found.told.auc - self.apart) / max(found.told.error, 1e-3) - 1.96,
            where=("validation inputs",),
            onset_step=0,
            evidence=(
                *told_apart(record, found, self.apart, self.further),
                *(() if of_data else (losses_apart(look, worse, self.errors),)),
                *once_aligned(found, self.aligned),
            ),
            remedies=shift_remedies(record, found, self.aligned) if found.further.low > self.further else (),
        )
