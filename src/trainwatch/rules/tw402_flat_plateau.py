"""TW402: the loss rests no lower than a constant guess, and neither slope nor curvature leads away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.depth_remedies import first_weight, fitting_variance, reinitialise
from trainwatch.symptoms.curvature import Curvature, curvature
from trainwatch.symptoms.experiments import Lead, Rival, lead, shaken
from trainwatch.symptoms.rest import Rest, rest_of
from trainwatch.symptoms.starved import below_the_last, change_within_reach

SURE = 2.0  # standard errors
GUESS = "a constant guess"
EFFECTS = ("TW102", "TW203", "TW204", "TW205", "TW208", "TW307", "TW602")


@dataclass(frozen=True)
class FlatPlateau(Rule):
    """The net has learned nothing and no way leads on: all layers, or all but the last, are flat to the loss.

    ## Symptom
    The loss rests where a constant guess is, or above: less than `learned` of it is gone. The last layer has found the
    best constant, and what lies below it gets no gradient to speak of; or not even the last layer gets any, as where
    answers are pressed to the ends of a sigmoid.

    ## Why it hurts
    More steps of the same kind lead nowhere, however many. Unlike at a saddle, there is no way down nearby, either.

    ## How it is measured
    Training and validation would gain less than `rest` of the loss of a constant guess in a third of the steps. The
    gradient without the noise of batches (`hessian`) promises less than `promise` of that loss, by a step as long as
    the largest curvature allows. The layers below the last get less than `starved` of its squared gradient
    (`grad_norm`), or to second order a step as long as all weights would change the loss by less than `still` of it.
    Neither a direction of negative curvature (`saddle_line`), beyond noise, nor noise in the weights (`shaken_loss`)
    leads down by `drop` of the loss. And there is something to learn: nearest neighbours or boosting
    (`reference_loss`), or the constant guess itself, beat the net by `lead` of the loss and `errors` standard errors.
    Curvature alone is no measure: along the bias of the last layer it is as large as anywhere.

    ## Remedies
    `watch-activations` finds the layer where the signal ends; `reinitialise`; `overfit-one-batch`.

    ## Not a fault when
    Nothing can be learned from the data, or a single layer or a narrow one is at its best: a minimum is flat, too.
    Where gradients vanish, units are dead or saturated, that is the cause (TW301, TW304, TW305).

    ## Sources
    §13; Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010), on
    plateaus of deep sigmoid nets.
    """

    code: ClassVar[str] = "TW402"
    name: ClassVar[str] = "flat-plateau"
    section: ClassVar[str] = "§13"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "grad_norm", "hessian")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    learned: float = 0.1
    rest: float = 0.1
    promise: float = 0.01
    starved: float = 0.1
    still: float = 0.001
    drop: float = 0.03
    lead: float = 0.1
    errors: float = 3.0

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Whether there is anything to learn, where nothing was."""
        rest = record.memo(rest_of)
        if rest is not None and rest.learned < self.learned:
            for kind in ("saddle", "reference", "train_eval"):
                yield ProbeRequest(kind, (), "nothing was learned: is there a way, and anything to learn?", 1.0)

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Look for any way on, and for something to learn."""
        found, rest = record.memo(curvature), record.memo(rest_of)
        if found is None or rest is None:
            raise NotChecked("too few steps, or losses that are not finite, to tell whether the loss is at rest")
        if not rest.known:
            raise NotChecked("it is not known what a constant guess costs")
        most = self.rest * rest.scale
        if rest.learned >= self.learned or rest.fall + SURE * rest.error >= most:
            return
        flat, escape = self._flat(record, found, rest), found.escape
        if flat is None:
            return
        copies = record.memo(shaken)
        falls = [] if escape is None or escape.drop < SURE * escape.drop_error else [escape.drop]
        falls += [] if copies is None or copies.lead < self.errors * copies.error else [copies.lead]
        if max(falls, default=0.0) >= self.drop * rest.scale:
            return
        ahead = _ahead(record, rest)
        if ahead is None:
            raise NotChecked("whether there is anything to learn was not measured: no validation batch, or no time")
        if ahead.lead >= max(self.lead * rest.scale, self.errors * ahead.error):
            yield self._found(record, found, rest, flat, ahead)

    def _flat(self, record: RunRecord, found: Curvature, rest: Rest) -> Evidence | None:
        """What tells that no layer, or none but the last, gets a gradient worth its name."""
        share, change = record.memo(below_the_last), record.memo(change_within_reach)
        if change is not None and change < self.still * rest.scale:
            name = "change of the loss by a step as long as the weights, to second order"
            return Evidence(name, change, self.still * rest.scale, step=found.step)
        if share is None or share >= self.starved or found.gradient_gain_above(SURE) >= self.promise * rest.scale:
            return None
        name = "squared gradient of the layers below the last over that of the last"
        return Evidence(name, share, self.starved, step=record.steps)

    def _found(self, record: RunRecord, found: Curvature, rest: Rest, flat: Evidence, ahead: Lead) -> Diagnosis:
        step, weight, down = found.step, first_weight(record), found.escape.drop if found.escape else 0.0
        promised = found.gradient_gain if found.largest > 0 else 0.0
        flatness = found.largest * found.weights**2 / rest.scale
        fresh = () if weight is None else (reinitialise(weight, fitting_variance(record)),)
        assert flat.value is not None
        assert flat.threshold is not None
        return self.diagnose(
            f"the loss rests at {rest.level:.3g}, where a constant guess costs {rest.chance:.3g}; the {flat.name} is "
            f"{flat.value:.1g}, no direction leads down, and {ahead.rival.name} comes to {ahead.rival.loss:.3g}",
            margin=min(ahead.lead / max(ahead.error, 1e-9), 10 * (1 - flat.value / flat.threshold), 1e3),
            onset_step=0,
            evidence=(
                flat,
                Evidence("what a step along the gradient would bring", promised, self.promise * rest.scale,
                         step=step, note=f"largest eigenvalue {found.largest:.2g} within {found.largest_bound:.1g}"),
                Evidence("fall along the most negative curvature", max(down, 0.0), self.drop * rest.scale, step=step,
                         note=f"most negative eigenvalue {found.smallest:.2g} within {found.smallest_bound:.1g}"),
                Evidence("largest eigenvalue times squared weights over the loss", flatness, step=step),
                Evidence("lead of another predictor on new samples", ahead.lead, self.lead * rest.scale,
                         where=ahead.rival.name, note=f"+- {ahead.error:.1g}"),
                Evidence("share of a constant guess's loss that is gone", rest.learned, self.learned,
                         note=f"fell by {rest.fall:.1g} +- {rest.error:.1g} in the last {rest.steps} steps"),
            ),
            remedies=(remedy("watch-activations"), *fresh, remedy("overfit-one-batch")),
        )  # fmt: skip


def _ahead(record: RunRecord, rest: Rest) -> Lead | None:
    """The surest lead of another predictor; that of a constant guess, which needs no data, where none was tried."""
    tried = record.memo(lead)
    if tried is not None or rest.learned >= 0:
        return tried
    error = rest.course.gained_error * rest.scale
    guess = Rival(GUESS, rest.level, rest.chance, error, rest.chance, 0, 0, record.steps)
    return Lead(guess, rest.level, rest.level - rest.chance, error)
