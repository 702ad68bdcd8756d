"""TW309: weights that begin all alike, far too large or far too small."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, ProbeRequest, Rule, always
from trainwatch.rules.begun_evidence import begun_better, usual_wanted
from trainwatch.rules.depth_remedies import fitting_variance, reinitialise
from trainwatch.rules.first_weight_evidence import Beginning, without_bound
from trainwatch.rules.non_finite_source import grew
from trainwatch.symptoms.first_weights import first_weights, is_equal, median_gain
from trainwatch.symptoms.gradients import gain_of, weight_layers
from trainwatch.symptoms.losses import LossCourse, loss_course
from trainwatch.symptoms.plateau import gained_in_both
from trainwatch.symptoms.subject import before_training

EFFECTS = ("TW203", "TW204", "TW205", "TW206", "TW208", "TW301", "TW302", "TW303", "TW304", "TW305", "TW306", "TW307",
           "TW401", "TW402", "TW403", "TW601", "TW602", "TW603", "TW604")  # fmt: skip


@dataclass(frozen=True)
class BadInitialisation(Rule):
    """The weights begin where training can hardly start from.

    ## Symptom
    More than half of the weight layers, two in a row among them, hold one and the same number. Or the median gain of
    the layers is above `large` with a first loss `wild` times that of chance, or above twice `large` with one of
    `raised` times that (`wild` in a regression, unless the answers are squashed); or it is below `small`; or the gain
    of a recurrent weight is above `large`, whatever the first loss. And less than `learned` of the loss of a constant
    guess is gone at the end, in training or in validation. Or that gain is below `modest` or above `ample`, and a copy
    from usual weights learns more. Before training, where a few steps on one batch stand in for the run, a small gain
    counts if they remove less than `begun`.

    ## Why it hurts
    Units that begin equal get equal gradients and stay equal: a layer is then worth one unit. A gain far above 1
    multiplies from layer to layer: activations saturate and the first loss is enormous. Far below 1 the signal dies
    out on its way through the net, and so do the gradients.

    ## How it is measured
    Deviation of each weight at the start, times the root of its fan-in: 0.58 by torch's default, 1 to 1.4 by Xavier
    and Kaiming. Layers that a normalisation follows do not count: it takes off whatever scale they have. Judged from
    `steps` optimiser steps on. A copy learns more where it ends lower than another, that begins as the run did, and
    than the run, in training and by `led` of the loss of a constant guess in validation (`usual_start`): a warning.

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
    modest: float = 0.35
    ample: float = 1.8
    led: float = 0.05

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """Copies from usual weights, where those of the run are unusual and something is left to learn."""
        gain = median_gain(first_weights(record))
        wish = usual_wanted(record, f"weights begin {gain:.2g} / sqrt(fan-in): what would usual ones bring?")
        if wish is not None and weight_layers(record) > 1 and not self.modest <= gain <= self.ample:
            yield wish

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        course, weights = record.memo(loss_course), first_weights(record)
        if course is None or not weights:
            raise NotChecked("no weight of a layer was seen at the start")
        if weight_layers(record) < 2:  # which gets to its best from wherever it begins
            return
        finished = record.facts.get("run", {}).get("finished")
        if record.steps < (self.steps if finished or not math.isfinite(course.end) else 10 * self.steps):
            raise NotChecked(f"only {record.steps} steps were seen: too few to tell whether they led anywhere")
        gained = gained_in_both(record)
        gain, ahead = median_gain(weights), begun_better(record, self.led, "usual")
        found = self._begun(record, course, weights, gained) if gained < self.learned else None
        if found is not None:
            margin, wild = (self.learned - gained) / course.gained_error, course.guesses(self.wild)
            first = Evidence("first loss", course.start, wild, where=course.stream, step=0)
            shown = Evidence("share of the loss that training removed", gained, self.learned, where=course.stream,
                             step=int(course.steps[-1]), note="the lesser of training and validation")  # fmt: skip
            went, margin = f"the loss went {course.story}", float(np.clip(margin, 0, 1e3))
            yield self._found(record, found, went, margin, Severity.ERROR, first, shown)
        elif ahead is not None and not self.modest <= gain <= self.ample:
            limit, size = (self.modest, "small") if gain < self.modest else (self.ample, "large")
            found = Beginning(weights, gain, limit, f"weights begin {gain:.3g} / sqrt(fan-in) {size}")
            yield self._found(record, found, ahead.told, ahead.margin, Severity.WARNING, ahead.shown)

    def _begun(
        self, record: RunRecord, course: LossCourse, weights: list[dict[str, Any]], gained: float
    ) -> Beginning | None:
        """Which weights begin where a run that learned little could not start from."""
        alike = [is_equal(w) for w in weights]
        equal = [w for w, same in zip(weights, alike, strict=True) if same]
        gain, start = median_gain(weights), course.first
        raised = self.wild if without_bound(record, course.stream) else self.raised
        twice_too_large = gain > 2 * self.large and (start is None or start > raised)
        # Units stay equal only where what they are given and what they give to are equal too.
        if 2 * len(equal) > len(weights) and any(a and b for a, b in pairwise(alike)):
            value = "zero" if not any(w["norm"] for w in equal) else "one number"
            what = f"all entries are {value}, so all units of a layer stay equal"
            return Beginning(equal, float(np.median([gain_of(w) for w in equal])), self.small, what)
        if chaotic := [w for w in weights if w["kind"] == "recurrent" and gain_of(w) > self.large]:
            gain = max(map(gain_of, chaotic))
            return Beginning(chaotic, gain, self.large, f"recurrent weights begin {gain:.3g} / sqrt(width) large")
        if twice_too_large or (gain > self.large and start is not None and start > self.wild):
            return Beginning(weights, gain, self.large, f"weights begin {gain:.3g} / sqrt(fan-in) large")
        if gain < self.small and not (before_training(record) and gained > self.begun):
            return Beginning(weights, gain, self.small, f"weights begin {gain:.3g} / sqrt(fan-in) small")
        return None

    def _found(
        self, record: RunRecord, begun: Beginning, told: str, margin: float, severity: Severity, *shown: Evidence
    ) -> Diagnosis:
        return self.diagnose(
            f"{begun.what} (layers {begun.named}); {told}",
            severity=severity,
            margin=margin,
            where=begun.layers,
            onset_step=0,
            evidence=(begun.shown, *shown),
            remedies=(reinitialise(begun.weights[0], fitting_variance(record)),),
        )
