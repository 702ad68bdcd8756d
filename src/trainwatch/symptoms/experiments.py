"""What experiments at the end of a run found: losses in evaluation mode, one batch, other predictors, no regulariser.

Losses are those of the run's criterion, in evaluation mode unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array
from trainwatch.symptoms.curves import validation_curve


@dataclass(frozen=True)
class Evaluated:
    """Held batches under the same conditions.

    Attributes:
        step: Optimiser steps taken before.
        training: Loss of training batches; `training_error` is its standard error.
        noisy: Loss of the same batches in training mode.
        validation: Loss of validation batches; NaN where none is held.
        training_error, validation_error: Standard errors.
    """

    step: int
    training: float
    training_error: float
    noisy: float
    validation: float
    validation_error: float

    @property
    def gap(self) -> tuple[float, float]:
        """By how much validation is worse than training, and the standard error of that."""
        return self.validation - self.training, float(np.hypot(self.validation_error, self.training_error))


@dataclass(frozen=True)
class OneBatch:
    """The loss of one batch before and after some steps on nothing else.

    Attributes:
        before: Loss at the end of the run.
        own: After steps of the run's own optimiser.
        reference: After steps of a reference optimiser without anything that regularises.
        samples: Samples in the batch.
        step: Optimiser steps taken before.
    """

    before: float
    own: float
    reference: float
    samples: int
    step: int


@dataclass(frozen=True)
class Rival:
    """Another predictor on the validation samples.

    Attributes:
        name: ``neighbours`` or ``boosting``.
        net: Loss of the net.
        loss: Loss of the other predictor.
        error: Standard error of their paired difference.
        guess: Loss of a constant guess.
        learned_from, scored: Training and validation samples.
        step: Optimiser steps taken before.
    """

    name: str
    net: float
    loss: float
    error: float
    guess: float
    learned_from: int
    scored: int
    step: int


@dataclass(frozen=True)
class GoingOn:
    """A copy that went on learning where the run ended.

    Attributes:
        taken: Steps that it took.
        before: Validation loss at the end of the run; `after` is that of the copy.
        gain: By how much the copy's is below the best pass of the run.
        error: Standard error of the difference over samples.
        step: Optimiser steps taken before.
    """

    taken: int
    before: float
    after: float
    gain: float
    error: float
    step: int


@dataclass(frozen=True)
class Change:
    """A loss at the end of a run, and of copies that learned from the start with and without a regulariser.

    Attributes:
        before: At the end of the run; of validation less by what the run's own was lower at its best, since copies are
            looked at several times, too.
        control: Of the copy that learned as the run did; not finite where it could not.
        without: Of the copy without the regulariser.
        control_error, before_error: Standard errors of the paired difference of `without` from either.
    """

    before: float
    control: float
    without: float
    control_error: float
    before_error: float

    @property
    def gain(self) -> float:
        """By how much less the loss is without, compared with whichever of the others is lower."""
        return (self.control if self.control <= self.before else self.before) - self.without

    @property
    def error(self) -> float:
        """Standard error of `gain`."""
        return self.control_error if self.control <= self.before else self.before_error

    @property
    def anyway(self) -> float:
        """Share of the way from the run's end to the copy without the regulariser that the other copy went as well."""
        fall = self.before - self.without
        return (self.before - self.control) / fall if fall > 0 and np.isfinite(self.control) else 0.0


@dataclass(frozen=True)
class Release:
    """What learning without a regulariser changed.

    Attributes:
        left_out: Of ``dropout``, ``weight_decay`` and ``penalty``, the terms that the run adds to its criterion.
        training: On the batches that the steps were taken on.
        validation: On others; None where none is held.
        step: Optimiser steps taken before.
        controlled: A copy learned as the run does; else the run itself stands for it.
    """

    left_out: tuple[str, ...]
    training: Change
    validation: Change | None
    step: int
    controlled: bool = True

    @property
    def changes(self) -> list[Change]:
        """Those that were measured."""
        return [change for change in (self.training, self.validation) if change is not None]


@dataclass(frozen=True)
class Shaken:
    """Losses of held batches after some steps: of a copy as it was, and of copies whose weights were shaken before.

    Attributes:
        steps: Of each copy.
        size: Of the noise in a weight, over the root mean square of its tensor or of usual beginnings.
        before: Loss at the end of the run.
        still: The lowest of the copy that was not shaken.
        shaken: Of the others, after all steps, the worst of them.
        error: Standard error of its difference from `still`.
        step: Optimiser steps taken before.
    """

    steps: int
    size: float
    before: float
    still: float
    shaken: float
    error: float
    step: int

    @property
    def lead(self) -> float:
        """By how much less the loss is where the weights were shaken."""
        return self.still - self.shaken


def evaluated(record: RunRecord) -> Evaluated | None:
    """The last look at held batches, for `RunRecord.memo`; None where there is none, or it is not finite."""
    row = record.latest("evaluated_loss", "held")
    return None if row is None or not np.isfinite(row[1][:3]).all() else Evaluated(row[0], *row[1])


def going_on(record: RunRecord) -> GoingOn | None:
    """What further steps brought a copy, for `RunRecord.memo`; None where it was not tried, or failed."""
    row, curve = record.latest("going_on", "held"), record.memo(validation_curve)
    if row is None or curve is None or not np.isfinite(row[1][4:]).all():
        return None
    before, after, error = row[1][4:].tolist()
    return GoingOn(round(row[1][0]), before, after, before - worsened(record) - after, error, row[0])


def one_batch(record: RunRecord) -> OneBatch | None:
    """The fit of one batch, for `RunRecord.memo`; None where there is none, or it began without a finite loss."""
    row = record.latest("one_batch_fit", "train")
    if row is None or not np.isfinite(row[1][0]):
        return None
    before, own, reference, samples = row[1]
    return OneBatch(before, own, reference, round(samples), row[0])


def shaken(record: RunRecord) -> Shaken | None:
    """What shaking the weights led to, for `RunRecord.memo`; None where it was not tried, or a loss is not finite."""
    row = record.latest("shaken_loss", "held")
    if row is None or not np.isfinite(row[1]).all():
        return None
    steps, size, before, still, *draws = row[1].tolist()
    last, error = max(zip(draws[::2], draws[1::2], strict=True))
    return Shaken(round(steps), size, before, still, last, error, row[0])


def rivals(record: RunRecord) -> list[Rival]:
    """Other predictors that were tried, the best first, for `RunRecord.memo`."""
    rows = {name: record.latest("reference_loss", name) for name in record.keys("reference_loss")}
    found = []
    for name, row in rows.items():
        if row is not None and np.isfinite(row[1]).all():
            net, loss, error, guess, learned_from, scored = row[1]
            found.append(Rival(name, net, loss, error, guess, round(learned_from), round(scored), row[0]))
    return sorted(found, key=lambda rival: rival.loss)


def releases(record: RunRecord) -> list[Release]:
    """What leaving out each regulariser changed, for `RunRecord.memo`."""
    found = []
    for name in record.keys("without_regulariser"):
        row = record.latest("without_regulariser", name)
        if row is not None and (training := _change(row[1][:5])) is not None:
            found.append(Release(tuple(name.split("+")), training, _change(row[1][5:], worsened(record)), row[0]))
    return found


def unpenalised(record: RunRecord) -> Release | None:
    """What learning by the criterion alone changed, where what is added to it is not known, for `RunRecord.memo`."""
    row = record.latest("further_steps", "held")
    training = _change(row[1][:5]) if row is not None else None
    if row is None or training is None:
        return None
    return Release(("penalty",), training, _change(row[1][5:], worsened(record)), row[0], controlled=False)


@dataclass(frozen=True)
class Lead:
    """What another predictor is ahead by on samples that it has not seen, of the net on those and on training samples.

    Attributes:
        rival: The other predictor.
        training: Loss of the net on the held training batches.
        lead: The lesser of both leads; `error` is its standard error.
    """

    rival: Rival
    training: float
    lead: float
    error: float


def lead(record: RunRecord) -> Lead | None:
    """The surest lead of another predictor, for `RunRecord.memo`; None where none was tried.

    A net that has learned its training samples by heart may be beaten on others; one that is beaten even on those that
    it was trained on has not learned enough.
    """
    look = record.memo(evaluated)
    if look is None:
        return None
    found = []
    for rival in record.memo(rivals):
        ahead = min(rival.net, look.training) - rival.loss
        found.append(Lead(rival, look.training, ahead, float(np.hypot(look.training_error, rival.error))))
    return max((one for one in found if np.isfinite(one.error)), key=lambda one: one.lead, default=None)


def _change(row: Array, worsened: float = 0.0) -> Change | None:
    return Change(row[0] - worsened, *row[1:]) if np.isfinite(row[[0, 2]]).all() else None


def worsened(record: RunRecord) -> float:
    """By how much the validation loss is above the lowest of the run."""
    curve = record.memo(validation_curve)
    worsened = 0.0 if curve is None else float(curve.mean[-1] - curve.mean.min())
    return worsened if np.isfinite(worsened) else 0.0
