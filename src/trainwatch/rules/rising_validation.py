"""What TW201, TW202 and TW203 share: a validation loss that rises from its minimum."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, ProbeRequest, Rule
from trainwatch.rules.dropout_remedies import VOTES
from trainwatch.symptoms.curves import ValidationCurve, validation_curve
from trainwatch.symptoms.experiments import Evaluated, evaluated
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.paired import Rise, validation_rise

SURE = 0.95  # share of the curves without a rise that show less, for fewer standard errors to do


@dataclass(frozen=True)
class Risen:
    """A rise that counts.

    Attributes:
        curve: The validation curve.
        rise: Its rise above the minimum.
        share: The rise as a share of the drop before it.
        margin: Standard errors beyond the threshold.
        training: Training loss around the best pass and now.
        accuracy: Validation accuracy around the best pass and now; None where it was not recorded.
        look: Held batches in evaluation mode at the end, where a probe looked at them.
    """

    curve: ValidationCurve
    rise: Rise
    share: float
    margin: float
    training: tuple[float, float]
    accuracy: tuple[float, float] | None
    look: Evaluated | None = None

    def accuracy_fell(self, slack: float) -> bool:
        """Whether accuracy is lower by more than `slack`; a run without accuracy counts as one where it fell."""
        # Accuracies are means of counts: rounding must not decide a loss of exactly `slack`.
        return self.accuracy is None or self.accuracy[0] - self.accuracy[1] > slack + 1e-9


@dataclass(frozen=True)
class RisingValidation(Rule):
    """Base of the rules on a rising validation loss.

    TW201 and TW202 differ in accuracy alone: of one rise while training goes on falling exactly one of them speaks.
    """

    needs: ClassVar[tuple[str, ...]] = ("train_loss", "val_loss")

    min_rise: float = 0.02
    of_left: float = 0.04
    min_errors: float = 2.0
    clear_rise: float = 0.05
    fewer_errors: float = 1.0
    apart: float = 0.8
    min_after: int = 3
    accuracy_slack: float = 0.01

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """The gap under the same conditions; where validation rises, what would have to be regularised, and how."""
        if record.has("val_loss"):
            yield ProbeRequest("train_eval", (), "training and validation loss under the same conditions", 0.1)
        with suppress(NotChecked):
            if self.rise(record) is not None:
                yield ProbeRequest("small_changes", (), "validation rises: what do small changes of inputs do?", 0.2)
                yield ProbeRequest("input_importance", (), "validation rises: would L1 or L2 fit better?", 0.2)
                yield VOTES

    def rise(self, record: RunRecord) -> tuple[Rise, float, float] | None:
        """A rise beyond the thresholds, the drop before it, and the margin; None where there is none.

        Raises:
            NotChecked: There are too few passes.
        """
        curve, rise = record.memo(validation_curve), record.memo(validation_rise)
        if curve is None or rise is None or len(curve.steps) < self.min_after + 2:
            seen = 0 if curve is None else len(curve.steps)
            raise NotChecked(f"{seen} whole validation passes; a rise needs at least {self.min_after + 2} to show")
        if len(curve.steps) - 1 - rise.best < self.min_after:
            return None
        course = record.memo(loss_course)
        chance = (
            course.chance if course is not None and course.chance is not None and curve.same_criterion else curve.start
        )
        reference = max(min(curve.start, chance) - rise.minimum, abs(rise.minimum - curve.floor))
        if rise.rise <= self.least(curve, rise, reference):
            return None
        beyond = max(rise.rise - max(self._smallest(curve, rise, reference), self.min_errors * rise.error), 0.0)
        return rise, reference, beyond / rise.error if rise.error > 0 else float("inf")

    def least(self, curve: ValidationCurve, rise: Rise, reference: float) -> float:
        """What a rise must exceed: fewer errors do for a clear one where training went on alone."""
        late = curve.training[-rise.last :]
        late = late[np.isfinite(late)]
        alone = curve.same_criterion and len(late) and late.mean() - curve.floor < self.apart * (rise.end - curve.floor)
        errors = self.min_errors
        if alone and rise.probability >= SURE:  # the clearer the rise, the fewer
            rises = self.min_rise * reference, self.clear_rise * reference
            errors = float(np.interp(rise.rise, rises, (self.min_errors, self.fewer_errors)))
        return max(self._smallest(curve, rise, reference), errors * rise.error)

    def _smallest(self, curve: ValidationCurve, rise: Rise, reference: float) -> float:
        """What a rise must exceed however sure it is. Where little can be learned, more is left than was learned."""
        return max(self.min_rise * reference, self.of_left * abs(rise.minimum - curve.floor))

    def ended_above(self, record: RunRecord) -> bool:
        """Whether the run ended above its minimum by `of_left`, sure or not, and was left with those weights."""
        curve, rise = record.memo(validation_curve), record.memo(validation_rise)
        if curve is None or rise is None or best_weights_are_back(record):
            return False
        return bool(rise.rise > self.of_left * abs(rise.minimum - curve.floor))

    def risen(self, record: RunRecord) -> Risen | None:
        """The rise of the primary validation loss, or None where it is none or training rises too.

        Raises:
            NotChecked: There are too few passes, or no training loss lies between them.
        """
        found, curve = self.rise(record), record.memo(validation_curve)
        if found is None or curve is None:
            return None
        rise, reference, margin = found
        then, now, error = self._training(curve, rise)
        fell = then - now > 2 * error
        below = curve.same_criterion and now < rise.minimum
        if not (fell or below) or now - then > rise.rise / 2:
            return None  # training got no better, or worse as well: divergence or shift, not fit
        return Risen(
            curve, rise, rise.rise / reference, margin, (then, now), _accuracy(curve, rise), record.memo(evaluated)
        )

    def evidence(self, found: Risen) -> tuple[Evidence, ...]:
        """What both rules show."""
        rise, curve, now = found.rise, found.curve, int(found.curve.steps[-1])
        pairing = "paired samples" if curve.paired else "unpaired: the passes do not show the same samples in one order"
        low, high = rise.interval
        then_loss, now_loss = found.training
        gap = f"{rise.end - now_loss:.4g}" if curve.same_criterion else "not measured: another criterion in training"
        shown = [
            Evidence(
                "rise of the validation loss above its minimum",
                rise.rise,
                threshold=self.least(curve, rise, rise.rise / found.share),
                where=curve.stream,
                step=now,
                note=f"95 % interval {low:.4g} to {high:.4g}, {pairing}; {found.share:.0%} of the drop before it; "
                f"P(rise) {rise.probability:.2f}",
            ),
            Evidence(
                "validation loss at its minimum",
                rise.minimum,
                where=curve.stream,
                step=rise.best_step,
                note=f"95 % interval of that step: {rise.best_steps[0]} to {rise.best_steps[1]}",
            ),
            Evidence(
                "validation loss now", rise.end, where=curve.stream, step=now, note=f"of the last {rise.last} passes"
            ),
            Evidence("training loss at the best pass", then_loss, step=rise.best_step),
            Evidence("training loss now", now_loss, step=now, note=f"gap to validation: {gap}"),
        ]
        if found.look is not None:
            look, name = found.look, "training loss in evaluation mode"
            beside = f"; of held validation batches: {look.validation:.4g}" if np.isfinite(look.validation) else ""
            note = f"of held batches, standard error {look.training_error:.2g}{beside}"
            shown.append(Evidence(name, look.training, step=look.step, note=note))
        if found.accuracy is not None:
            best, last = found.accuracy
            note = f"{best:.4g} around the best pass; a loss above {self.accuracy_slack:g} makes it overfitting"
            shown.append(Evidence("validation accuracy now", last, where=curve.stream, step=now, note=note))
        return tuple(shown)

    @staticmethod
    def _training(curve: ValidationCurve, rise: Rise) -> tuple[float, float, float]:
        """Training loss around the best pass, now, and the standard error of their difference."""
        near, late = curve.training[max(0, rise.best - 1) : rise.best + 2], curve.training[-rise.last :]
        near, late = near[np.isfinite(near)], late[np.isfinite(late)]
        if not len(near) or not len(late):
            raise NotChecked("no training loss lies between the validation passes")
        since = np.diff(curve.training[rise.best :])
        jitter = float(np.nanstd(since)) / np.sqrt(2)
        return float(near.mean()), float(late.mean()), jitter * float(np.sqrt(1 / len(near) + 1 / len(late)))


def best_weights_are_back(record: RunRecord) -> bool:
    """Whether weights were loaded into the model after the last step, as restoring those of the best pass does.

    Weights that are swapped at every pass, such as a moving average of them, do not count.
    """
    loaded, curve = record.facts.get("weights_loaded"), record.memo(validation_curve)
    passes = 0 if curve is None else len(curve.steps)
    return bool(loaded and 0 < record.steps <= loaded["last_step"] and loaded["times"] <= max(1, passes // 2))


def early_stopping(record: RunRecord, curve: ValidationCurve, rise: Rise) -> Remedy:
    """The remedy `early-stopping` with the numbers of this run."""
    used = bool(record.facts.get("regularisation", {}).get("early_stopping"))
    return remedy(
        "early-stopping",
        already_in_use=used,
        best_step=rise.best_step,
        low=rise.best_steps[0],
        high=rise.best_steps[1],
        spent=1 - rise.best_step / max(int(curve.steps[-1]), 1),
        patience=max(2, (len(curve.steps) - rise.best) // 4),
        next_step="# In use already: lower its patience, and restore the best weights at the end."
        if used
        else "# Not in use yet.",
    )


def ranked(remedies: list[Remedy]) -> tuple[Remedy, ...]:
    """Remedies in the order given, but weakly supported ones later and those already in use last."""
    return tuple(sorted(remedies, key=lambda r: (r.already_in_use, r.strength == "weak")))


def _accuracy(curve: ValidationCurve, rise: Rise) -> tuple[float, float] | None:
    if curve.accuracy is None:
        return None
    near = curve.accuracy[max(0, rise.best - 1) : rise.best + 2]
    return float(near.mean()), float(curve.accuracy[-rise.last :].mean())
