"""TW305: hidden sigmoids or tanhs that sit on their flat ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.rules.base import Predicate, ProbeRequest, always
from trainwatch.rules.begun_evidence import begun_better, usual_wanted
from trainwatch.rules.depth_remedies import first_weight, rectified, reinitialise
from trainwatch.rules.hidden_activity import HiddenActivity, named
from trainwatch.symptoms.activity import Activity, activities
from trainwatch.symptoms.gates import belongs_to_gate


@dataclass(frozen=True)
class SaturatedActivations(HiddenActivity):
    """Most values of a hidden sigmoid or tanh lie where it is flat, and the net has not learned much.

    ## Symptom
    In some hidden sigmoid or tanh `flat` of all values lie where it has lost 95 % of its steepest slope, while less
    than `learned` of the loss of a constant guess is gone. Or `half` of them do, and a copy without that learns more.

    ## Why it hurts
    Where the function is flat its derivative is next to zero: no gradient reaches what lies below, and the layer acts
    as a switch that training cannot turn.

    ## How it is measured
    `activity`, by a probe: the held training batches run through a copy of the model in evaluation mode. Judged from
    `entries` samples times positions on. A copy that learns from the start with usual weights, or with ReLUs as well,
    learns more where it ends lower than one as the run began and than the run, in training and by `led` of the loss of
    a constant guess in validation (`usual_start`). What the loss is given is left out: a sure answer is saturated by
    right.

    ## Remedies
    `relu-family`; `reinitialise` where it was saturated at the first probe. Inputs far from unit scale are TW107's.

    ## Not a fault when
    The net learns all the same. Gates that open and close are saturated by design; stuck ones are TW306's.

    ## Sources
    §9; Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010).
    """

    code: ClassVar[str] = "TW305"
    name: ClassVar[str] = "saturated-activations"
    section: ClassVar[str] = "§9"
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(
        ("TW204", "TW205", "TW208", "TW301", "TW307", "TW401", "TW402", "TW602"), always
    )

    flat: float = 0.9
    half: float = 0.5
    led: float = 0.1

    def asks(self, record: RunRecord) -> Iterable[ProbeRequest]:
        """See `HiddenActivity`; where much is saturated, also what copies without that would learn."""
        yield from super().asks(record)
        wish = usual_wanted(record, "saturated units: would rectified ones or usual weights learn more?")
        if wish is not None and any(a.squashes and a.flat >= self.half for a in record.memo(activities)):
            yield wish

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the share of flat values in each activation with the threshold."""
        course, judged = self.judged(record, squashing=True)
        judged = [a for a in judged if not belongs_to_gate(record, a.site, a.module, a.function)]
        limit, flat = self.flat, [a for a in judged if a.flat >= self.flat]
        told, sure = f"the loss went {course.story}", (self.learned - course.gained) / course.gained_error
        shown = Evidence("share of the loss that training removed", course.gained, self.learned, where=course.stream)
        if not flat or course.gained >= self.learned:
            limit, flat = self.half, [a for a in judged if a.flat >= self.half]
            ahead = begun_better(record, self.led, "usual", "rectified")
            if not flat or ahead is None:
                return
            told, sure, shown = ahead.told, ahead.margin, ahead.shown
        worst = max(flat, key=lambda a: a.flat)
        error = float(np.sqrt(max(worst.flat * (1 - worst.flat), 0.01) / worst.entries))
        yield self.diagnose(
            f"values where the activation is flat: {named([(a, a.flat) for a in flat])}; {told}",
            margin=min((worst.flat - limit) / error, sure, 1e3),
            where=tuple(dict.fromkeys(a.module or a.site for a in flat)),
            onset_step=worst.first_step if worst.first >= limit else worst.step,
            evidence=(
                Evidence("share of saturated values", worst.flat, limit, where=worst.site, step=worst.step,
                         note=f"{worst.entries} entries of {worst.units} units"),
                Evidence("at the first probe", worst.first, where=worst.site, step=worst.first_step),
                shown,
            ),
            remedies=tuple(_remedies(record, worst, flat, limit)),
        )  # fmt: skip


def _remedies(record: RunRecord, worst: Activity, flat: list[Activity], limit: float) -> Iterator[Remedy]:
    modules = {m["name"]: m["type"] for m in record.facts.get("modules", ())}
    places = [a.module for a in flat if modules.get(a.module) in ("Sigmoid", "Tanh")]
    if places:
        types = " and ".join(dict.fromkeys(modules[m] for m in places))
        reason = f"{max(a.flat for a in flat):.0%} of the values lie where the slope is next to zero."
        yield rectified(record, types, places, reason)
    first = first_weight(record)
    if first is not None and worst.first >= limit:
        yield reinitialise(first, 1.0)
