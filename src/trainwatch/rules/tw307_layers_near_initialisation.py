"""TW307: some layers end where they were drawn at random, while others moved far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, always
from trainwatch.symptoms.gradients import SGD, damping
from trainwatch.symptoms.losses import LossCourse, loss_course
from trainwatch.symptoms.plateau import gained_in_both
from trainwatch.symptoms.useful_motion import LayerMotion, layer_motions

RATES = 1e-4, 1e-2  # of Adam
SHOWN = 3
SPREAD = 0.05  # of a distance: its standard error from a thousand coordinates, and what a seed changes
EFFECTS = ("TW203", "TW204", "TW205", "TW208", "TW602")


@dataclass(frozen=True)
class LayersNearInitialisation(Rule):
    """The optimiser holds layers that never left their random start, and the loss is poor.

    ## Symptom
    Weights that get gradients end within `still` of their length from where they began and look as they were drawn;
    the others moved by more than `moved`. The rates of the two are `apart` times apart, and less than `learned` of the
    loss is gone; or at one rate under plain gradient descent, the still ones went less than `starved`, and less than
    `starved` of the way of the others, and less than `poor` of the loss is gone.

    ## Why it hurts
    What lies above a random layer can only make do with random features of the input: the deep net is in effect a
    shallow one. Nothing fails, and the loss does fall for a while.

    ## How it is measured
    `motion`: up to 1,024 fixed coordinates of each weight, their distance from the start over their length there.
    Medians of the others. A weight looks as drawn where its entries are still those of its initialisation, uniform or
    random in all directions. Judged at the end of runs of at least `steps` steps.

    ## Remedies
    `group-learning-rate`, where a group's rate is the cause; else `adaptive-steps`.

    ## Not a fault when
    The loss is good: a very wide net moves little. The weights carry training: a body is fine-tuned at a low rate on
    purpose. All layers are still (TW602), or the gradient fades on its way to the first ones (TW301). Embeddings move
    little under plain gradient descent, each row only when it is looked up; they are judged by their rate alone.

    ## Sources
    §9; Chizat, Oyallon and Bach, "On lazy training in differentiable programming" (2019).
    """

    code: ClassVar[str] = "TW307"
    name: ClassVar[str] = "layers-near-initialisation"
    section: ClassVar[str] = "§9"
    needs: ClassVar[tuple[str, ...]] = ("train_loss", "grad_norm", "motion")
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    still: float = 0.05
    moved: float = 0.1
    apart: float = 20.0
    learned: float = 0.9
    starved: float = 0.01
    poor: float = 0.7
    steps: int = 50

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if not record.facts.get("run", {}).get("finished"):
            raise NotChecked("the run has not ended: how far its layers will get is not known yet")
        course, motions = record.memo(loss_course), record.memo(layer_motions)
        if course is None or motions is None:
            raise NotChecked("the weights could not be followed to the end, or by one optimiser")
        if record.steps < self.steps:
            raise NotChecked(f"only {record.steps} steps were seen; {self.steps} are needed")
        fresh = record.facts.get("still", {})
        near = [m for m in motions if m.gradient > 0 and m.distance < self.still and fresh.get(m.parameter["name"])]
        others = [m for m in motions if m.distance >= self.still]
        typical = float(np.median([m.distance for m in others])) if others else 0.0
        if typical < self.moved or not np.isfinite(course.end):
            return
        rate, gained = max(m.rate for m in others), gained_in_both(record)
        slow = [m for m in near if self.apart * m.rate <= rate and self.apart * m.distance <= typical]
        plain = record.facts["optimizers"][record.keys("grad_norm")[0]]["type"] in SGD
        faint = [
            m for m in near if m.distance < self.starved * min(1.0, typical) and m.parameter["kind"] != "embedding"
        ]
        if slow and gained < self.learned:
            yield self._found(course, slow, others, typical, gained, self.learned, _rates(record, slow, others))
        elif plain and faint and gained < self.poor:
            yield self._found(course, faint, others, typical, gained, self.poor, _adaptive(record, faint, others))

    def _found(
        self, course: LossCourse, near: list[LayerMotion], others: list[LayerMotion], typical: float, gained: float,
        learned: float, cure: Remedy,
    ) -> Diagnosis:  # fmt: skip
        named, furthest = _named(near), max(near, key=lambda m: m.distance)
        return self.diagnose(
            f"{named} ended {furthest.distance:.1g} of their length from where they were drawn, the other layers "
            f"{typical:.2g}; the loss went {course.story}",
            margin=float(min((self.still - furthest.distance) / (SPREAD * self.still),
                             (learned - gained) / course.gained_error)),
            where=tuple(dict.fromkeys(m.module for m in near)),
            onset_step=0,
            evidence=(
                Evidence("distance from the start over length", furthest.distance, self.still, where=furthest.module,
                         step=int(course.steps[-1]), note=f"mean rate {furthest.rate:.3g}"),
                Evidence("the same of the other layers", typical, self.moved, where=_named(others),
                         step=int(course.steps[-1]), note=f"mean rate {max(m.rate for m in others):.3g}"),
                Evidence("share of the loss that training removed", gained, learned, where=course.stream,
                         step=int(course.steps[-1]), note="the lesser of training and validation"),
            ),
            remedies=(cure,),
        )  # fmt: skip


def _named(motions: list[LayerMotion]) -> str:
    names = list(dict.fromkeys(m.module for m in motions))
    return ", ".join(f"'{n}'" for n in names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")


def _rates(record: RunRecord, near: list[LayerMotion], others: list[LayerMotion]) -> Remedy:
    """For the groups of the still layers, the rate that the others began with."""
    groups, fast = sorted({m.group for m in near}), max(others, key=lambda m: m.rate)
    known = record.facts["optimizers"][record.keys("grad_norm")[0]]["groups"]
    return remedy("group-learning-rate", layers=_named(near), groups=groups, fast=fast.module,
                  present=f"{max(known[g]['initial_lr'] for g in groups):.3g}",
                  proposed=f"{known[fast.group]['initial_lr']:.3g}")  # fmt: skip


def _adaptive(record: RunRecord, near: list[LayerMotion], others: list[LayerMotion]) -> Remedy:
    """Adam, whose steps are as long as those that the other layers take now, within usual rates."""
    typical = float(np.median([m.gradient for m in others]))
    group = record.facts["optimizers"][record.keys("grad_norm")[0]]["groups"][others[0].group]
    step = group["initial_lr"] / damping(group) * typical
    share = float(np.median([m.gradient for m in near])) / typical
    return remedy("adaptive-steps", layers=_named(near), ratio=f"{share:.1g}", first=near[0].module,
                  rate=f"{np.clip(step, *RATES):.1g}")  # fmt: skip
