"""TW309: weights that begin all alike, far too large or far too small."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, Rule, always
from trainwatch.rules.depth_remedies import reinitialise
from trainwatch.rules.non_finite_source import grew
from trainwatch.symptoms.gradients import before_normalisation, gain_of, weight_layers
from trainwatch.symptoms.losses import LossCourse, loss_course
from trainwatch.symptoms.plateau import gained_in_both
from trainwatch.symptoms.subject import before_training

EQUAL = 0.01  # deviation over root mean square below which entries are as good as the same
SHOWN = 3
EFFECTS = ("TW203", "TW204", "TW205", "TW206", "TW208", "TW301", "TW302", "TW303", "TW304", "TW305", "TW306", "TW307",
           "TW401", "TW402", "TW403", "TW601", "TW602", "TW603", "TW604")  # fmt: skip
BOUNDED = ("Softmax", "Sigmoid", "Tanh")  # what a squashed answer is made by


@dataclass(frozen=True)
class BadInitialisation(Rule):
    """The weights begin where training can hardly start from.

    ## Symptom
    More than half of the weight layers, two in a row among them, hold one and the same number. Or the median gain of
    the layers is above `large` with a first loss `wild` times that of chance, or above twice `large` with one of
    `raised` times that (`wild` in a regression, unless the answers are squashed); or it is below `small`; or the gain
    of a recurrent weight is above `large`, whatever the first loss. And less than `learned` of the loss of a constant
    guess is gone at the end, in training or in validation. Before training, where a few steps on one batch stand in for
    the run, a small gain counts if they remove less than `begun`.

    ## Why it hurts
    Units that begin equal get equal gradients and stay equal: a layer is then worth one unit. A gain far above 1
    multiplies from layer to layer: activations saturate and the first loss is enormous. Far below 1 the signal dies
    out on its way through the net, and so do the gradients.

    ## How it is measured
    Deviation of each weight at the start, times the root of its fan-in: 0.58 by torch's default, 1 to 1.4 by Xavier
    and Kaiming. Layers that a normalisation follows do not count: it takes off whatever scale they have. Judged from
    `steps` optimiser steps on.

    ## Remedies
    `reinitialise`, with the present and the proposed deviation.

    ## Not a fault when
    The run learns all the same: pretrained weights, a last layer, an adapter or residual branches that begin at zero on
    purpose, half of all layers at most. A linear model has a single minimum, wherever it begins.

    ## Sources
    §9; Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010); He et
    al., "Delving deep into rectifiers" (2015).
    """

    code = "TW309"
    name = "bad-initialisation"
    severity = Severity.ERROR
    section = "§9"
    needs = ("train_loss",)
    explains: ClassVar[dict[str, Predicate]] = {**dict.fromkeys(EFFECTS, always), "TW303": grew}

    large: float = 2.0
    wild: float = 5.0
    raised: float = 1.5
    small: float = 0.08
    learned: float = 0.75
    begun: float = 0.02
    steps: int = 30

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        course, weights = record.memo(loss_course), _weights(record)
        if course is None or not weights:
            raise NotChecked("no weight of a layer was seen at the start")
        if weight_layers(record) < 2:  # which gets to its best from wherever it begins
            return
        finished = record.facts.get("run", {}).get("finished")
        if record.steps < (self.steps if finished or not math.isfinite(course.end) else 10 * self.steps):
            raise NotChecked(f"only {record.steps} steps were seen: too few to tell whether they led anywhere")
        gained = gained_in_both(record)
        if gained >= self.learned:
            return
        alike = [w["numel"] > 1 and w["std"] <= EQUAL * w["norm"] / math.sqrt(w["numel"]) for w in weights]
        equal = [w for w, is_equal in zip(weights, alike, strict=True) if is_equal]
        spread = [gain_of(w) for w, is_equal in zip(weights, alike, strict=True) if not is_equal and w["numel"] > 1]
        gain = float(np.median(spread)) if spread else math.nan  # of those that begin with a spread at all
        start = course.start / course.chance if course.chance else None
        raised = self.wild if _without_bound(record, course.stream) else self.raised
        twice_too_large = gain > 2 * self.large and (start is None or start > raised)
        # Units stay equal only where what they are given and what they give to are equal too.
        if 2 * len(equal) > len(weights) and any(a and b for a, b in pairwise(alike)):
            value = "zero" if not any(w["norm"] for w in equal) else "one number"
            what = f"all entries are {value}, so all units of a layer stay equal"
            yield self._found(course, equal, float(np.median([gain_of(w) for w in equal])), self.small, gained, what)
        elif chaotic := [w for w in weights if w["kind"] == "recurrent" and gain_of(w) > self.large]:
            gain = max(map(gain_of, chaotic))
            what = f"recurrent weights begin {gain:.3g} / sqrt(width) large"
            yield self._found(course, chaotic, gain, self.large, gained, what)
        elif twice_too_large or (gain > self.large and start is not None and start > self.wild):
            what = f"weights begin {gain:.3g} / sqrt(fan-in) large"
            yield self._found(course, weights, gain, self.large, gained, what)
        elif gain < self.small and not (before_training(record) and gained > self.begun):
            what = f"weights begin {gain:.3g} / sqrt(fan-in) small"
            yield self._found(course, weights, gain, self.small, gained, what)

    def _found(
        self, course: LossCourse, weights: list[dict[str, Any]], gain: float, threshold: float, gained: float, what: str
    ) -> Diagnosis:
        layers = [str(w["module"] or "model") for w in weights]
        named = ", ".join(layers[:SHOWN]) + (f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else "")
        return self.diagnose(
            f"{what} (layers {named}); the loss went {course.story}",
            margin=float(np.clip((self.learned - gained) / course.gained_error, 0, 1e3)),
            where=tuple(layers),
            onset_step=0,
            evidence=(
                Evidence("gain: deviation times the root of the fan-in", gain, threshold, where=named, step=0,
                         note="0.58 by torch's default, 1 to 1.4 by Xavier and Kaiming"),
                Evidence("first loss", course.start, course.chance and self.wild * course.chance, where=course.stream,
                         step=0),
                Evidence("share of the loss that training removed", gained, self.learned, where=course.stream,
                         step=int(course.steps[-1]), note="the lesser of training and validation"),
            ),
            remedies=(reinitialise(weights[0], 2.0),),
        )  # fmt: skip


def _without_bound(record: RunRecord, stream: str) -> bool:
    """A squared error of answers that nothing holds within bounds: the least excess multiplies it."""
    known = record.facts.get("loss", {}).get(stream, {})
    return record.facts.get("task") == "regression" and known.get("last_operation") not in BOUNDED


def _weights(record: RunRecord) -> list[dict[str, Any]]:
    """Weights of layers that are trained and that no normalisation follows, in order of execution."""
    known = [p for p in record.facts.get("parameters", ()) if p["kind"] in ("weight", "recurrent") and "std" in p]
    rescaled = before_normalisation(record.facts.get("modules", []))
    known = [p for p in known if p["trainable"] and len(p["shape"]) > 1 and p["module"] not in rescaled]
    return sorted(known, key=lambda p: int(p["order"]))
