"""TW304: units that no sample activates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import Predicate, always
from trainwatch.rules.depth_remedies import odd_weight, reinitialise
from trainwatch.rules.hidden_activity import HiddenActivity, named
from trainwatch.rules.step_remedies import LONG, UPDATE, shorter_step
from trainwatch.symptoms.activity import Activity
from trainwatch.symptoms.gradients import largest_update


@dataclass(frozen=True)
class DeadUnits(HiddenActivity):
    """Most units of a layer are zero whatever the input, and the net has not learned much.

    ## Symptom
    In some activation that is zero below a bound (ReLU, ReLU6, threshold) `many` of the units are zero for every
    sample and position looked at, while less than `learned` of the loss of a constant guess is gone.

    ## Why it hurts
    A unit that is zero for all inputs has no gradient, and so never comes back. Where all units of a layer are dead
    nothing of the input passes, and the net says the same whatever it is shown.

    ## How it is measured
    `activity`, by a probe: the held training batches run through a copy of the model in evaluation mode. Judged from
    `entries` samples times positions on: a unit that none of n of them activates is active for fewer than 3 in n.

    ## Remedies
    `lower-learning-rate` where a long step may have killed them; `reinitialise` where they were dead at the first probe
    and no step was long; `leaky-relu`, which lets a dead unit come back.

    ## Not a fault when
    The net learns all the same: it has more units than it needs. Sparse codes are dead by design for most samples, but
    not for all.

    ## Sources
    §9; Lu et al., "Dying ReLU and initialization" (2019); Maas, Hannun and Ng, "Rectifier nonlinearities improve neural
    network acoustic models" (2013).
    """

    code: ClassVar[str] = "TW304"
    name: ClassVar[str] = "dead-units"
    section: ClassVar[str] = "§9"
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(
        ("TW204", "TW205", "TW208", "TW307", "TW401", "TW402", "TW602"), always
    )

    many: float = 0.7

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Compare the share of dead units in each activation with the threshold."""
        course, judged = self.judged(record, squashing=False)
        dead = [a for a in judged if a.dead >= self.many]
        if not dead or course.gained >= self.learned:
            return
        worst = max(dead, key=lambda a: a.dead)
        error = float(np.sqrt(max(worst.dead * (1 - worst.dead), 1 / worst.units) / worst.units))
        yield self.diagnose(
            f"units that no sample activates: {named([(a, a.dead) for a in dead])}; the loss went {course.story}",
            severity=Severity.ERROR if worst.dead == 1.0 else self.severity,
            margin=min((worst.dead - self.many) / error, (self.learned - course.gained) / course.gained_error, 1e3),
            where=tuple(dict.fromkeys(a.module or a.site for a in dead)),
            onset_step=worst.first_step if worst.first >= self.many else worst.step,
            evidence=(
                Evidence("share of dead units", worst.dead, self.many, where=worst.site, step=worst.step,
                         note=f"of {worst.units}; each active for fewer than 3 in {worst.entries} entries"),
                Evidence("at the first probe", worst.first, where=worst.site, step=worst.first_step),
                Evidence("share of the loss that training removed", course.gained, self.learned, where=course.stream),
            ),
            remedies=tuple(_remedies(record, worst, dead, self.many)),
        )  # fmt: skip


def _remedies(record: RunRecord, worst: Activity, dead: list[Activity], many: float) -> Iterator[Remedy]:
    """What killed the units comes first, then what lets them come back."""
    modules = [m["name"] for m in record.facts.get("modules", ()) if m["type"] in ("ReLU", "ReLU6")]
    update = largest_update(record, 0, worst.first_step if worst.first >= many else worst.step)
    if update is not None and LONG < update[1] < 1e3 * UPDATE:  # where more is amiss, no learning rate is a cure
        yield shorter_step(record, *update)
    odd = odd_weight(record, 2.0)
    if worst.first >= many and odd is not None and (update is None or update[1] <= LONG):
        yield reinitialise(odd, 2.0)
    yield remedy("leaky-relu", modules=[m for m in modules if m in {a.module for a in dead}] or modules)
