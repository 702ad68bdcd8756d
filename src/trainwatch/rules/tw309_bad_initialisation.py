"""TW309: weights that begin all alike, far too large or far too small."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, always
from trainwatch.symptoms.losses import LossCourse, loss_course

EQUAL = 1e-6  # deviation over root mean square below which entries are the same
SHOWN = 3
EFFECTS = ("TW203", "TW204", "TW205", "TW208", "TW301", "TW302", "TW303", "TW601", "TW602", "TW603", "TW604")


@dataclass(frozen=True)
class BadInitialisation(Rule):
    """The weights begin where training can hardly start from.

    ## Symptom
    At least half of the weight layers hold one and the same number; or the median gain of the layers is above `large`
    (with a first loss `wild` times that of chance, or above twice `large`), or below `small`. And less than `learned`
    of the loss of a constant guess is gone at the end.

    ## Why it hurts
    Units that begin equal get equal gradients and stay equal: a layer is then worth one unit. A gain far above 1
    multiplies from layer to layer: activations saturate and the first loss is enormous. Far below 1 the signal dies
    out on its way through the net, and so do the gradients.

    ## How it is measured
    Deviation of each weight at the start, times the root of its fan-in: 0.58 by torch's default, 1 to 1.4 by Xavier
    and Kaiming. Judged from `steps` optimiser steps on.

    ## Remedies
    `reinitialise`, with the present and the proposed deviation.

    ## Not a fault when
    The run learns all the same: pretrained weights, layers in front of a normalisation, a last layer or a residual
    branch that begins at zero on purpose.

    ## Sources
    §9; Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010); He et
    al., "Delving deep into rectifiers" (2015).
    """

    code = "TW309"
    name = "bad-initialisation"
    severity = Severity.ERROR
    section = "§9"
    needs = ("train_loss",)
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    large: float = 2.0
    wild: float = 5.0
    small: float = 0.05
    learned: float = 0.75
    steps: int = 30

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        course, weights = record.memo(loss_course), _weights(record)
        if course is None or not weights:
            raise NotChecked("no weight of a layer was seen at the start")
        finished = record.facts.get("run", {}).get("finished")
        if record.steps < (self.steps if finished or not math.isfinite(course.end) else 10 * self.steps):
            raise NotChecked(f"only {record.steps} steps were seen: too few to tell whether they led anywhere")
        if course.gained >= self.learned:
            return
        gains = np.array([w["std"] * math.sqrt(_fan_in(w)) for w in weights])
        equal = [w for w in weights if w["std"] <= EQUAL * w["norm"] / math.sqrt(w["numel"])]
        gain = float(np.median(gains))
        start = course.start / course.chance if course.chance else 1.0
        if 2 * len(equal) >= len(weights):
            value = "zero" if not any(w["norm"] for w in equal) else "one number"
            yield self._found(
                course, equal, gain, self.small, f"all entries are {value}, so all units of a layer stay equal"
            )
        elif gain > 2 * self.large or (gain > self.large and start > self.wild):
            yield self._found(course, weights, gain, self.large, f"weights begin {gain:.3g} / sqrt(fan-in) large")
        elif gain < self.small:
            yield self._found(course, weights, gain, self.small, f"weights begin {gain:.3g} / sqrt(fan-in) small")

    def _found(
        self, course: LossCourse, weights: list[dict[str, Any]], gain: float, threshold: float, what: str
    ) -> Diagnosis:
        layers = [str(w["module"]) for w in weights]
        named = ", ".join(layers[:SHOWN]) + (f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else "")
        first = weights[0]
        return self.diagnose(
            f"{what} (layers {named}); the loss went {course.story}",
            margin=float(np.clip((self.learned - course.gained) / course.gained_error, 0, 1e3)),
            where=tuple(layers),
            onset_step=0,
            evidence=(
                Evidence("median gain: deviation times the root of the fan-in", gain, threshold, where=named, step=0,
                         note="0.58 by torch's default, 1 to 1.4 by Xavier and Kaiming"),
                Evidence("first loss", course.start, course.chance and self.wild * course.chance, where=course.stream,
                         step=0),
                Evidence("share of the loss that training removed", course.gained, self.learned, where=course.stream,
                         step=int(course.steps[-1])),
            ),
            remedies=(
                remedy("reinitialise", layer=first["module"], present=f"{first['std']:.3g}",
                       proposed=f"{math.sqrt(2 / _fan_in(first)):.3g}", fan_in=_fan_in(first)),
            ),
        )  # fmt: skip


def _weights(record: RunRecord) -> list[dict[str, Any]]:
    """Weights of layers that are trained, in order of execution."""
    known = [p for p in record.facts.get("parameters", ()) if p["kind"] in ("weight", "recurrent") and "std" in p]
    return sorted((p for p in known if p["trainable"] and len(p["shape"]) > 1), key=lambda p: int(p["order"]))


def _fan_in(weight: dict[str, Any]) -> int:
    return math.prod(weight["shape"][1:])
