"""TW711: the first loss is far above that of a guess."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, always
from trainwatch.symptoms.losses import LossCourse, loss_course
from trainwatch.symptoms.ranges import Range, range_of
from trainwatch.symptoms.subject import before_training

CAUSES = ("TW107", "TW108", "TW303", "TW304", "TW305", "TW309", "TW703", "TW707")


@dataclass(frozen=True)
class HighFirstLoss(Rule):
    """Before any step the net is not undecided but wildly wrong.

    ## Symptom
    The loss of the first batch is above `wild` times what a net costs that finds all classes equally likely; or, of a
    squared error, above `wild_squared` times the variance of the targets.

    ## Why it hurts
    The first hundred steps only undo what the weights say by chance, with gradients that are as much too large. An
    output far from the targets is a sign of weights, inputs or targets out of scale, or of a last layer made for other
    targets.

    ## How it is measured
    `train_loss` of the first step against ln K (K classes), ln 2 (yes / no labels that are not weighted) or the
    variance of the targets of that batch. Sound nets of the zoo begin below 3 times that, 7 times of a squared error.

    ## Remedies
    `smaller-first-outputs`, with the factor.

    ## Not a fault when
    Weights were trained before, for other labels: then it is a remark.

    ## Sources
    §9; Karpathy, "A recipe for training neural networks" (2019): "verify loss at init".
    """

    code: ClassVar[str] = "TW711"
    name: ClassVar[str] = "high-first-loss"
    section: ClassVar[str] = "§9"
    needs: ClassVar[tuple[str, ...]] = ("train_loss",)
    at_first_look: ClassVar[bool] = True
    explained_by: ClassVar[dict[str, Predicate]] = dict.fromkeys(CAUSES, always)

    wild: float = 5.0
    wild_squared: float = 25.0

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if not before_training(record):
            return
        course = record.memo(loss_course)
        known = record.facts.get("loss", {}).get(course.stream, {}) if course is not None else {}
        guess = _undecided(known, course)
        if course is None or guess is None or guess <= course.floor or not math.isfinite(course.start):
            raise NotChecked("what a net costs that knows nothing is not known of this loss")
        limit = self.wild_squared if known["function"] == "mse_loss" else self.wild
        ratio = (course.start - course.floor) / max(guess - course.floor, 1e-30)
        if ratio <= limit:
            return
        outputs, targets = (range_of(record, q, course.stream) for q in ("output_stats", "target_stats"))
        trained = (record.facts.get("start_weights") or {}).get("trained")
        yield self.diagnose(
            f"the first loss is {course.start:.3g}, {ratio:.3g} times what a net costs that knows nothing ({guess:.3g})"
            + (", in a net that was trained before" if trained else ""),
            severity=Severity.INFO if trained else self.severity,
            margin=float("inf"),
            where=(_last_layer(record),),
            onset_step=0,
            evidence=(
                Evidence("first loss over that of a guess", ratio, limit, unit="times", where=course.stream, step=0,
                         note=f"{course.start:.4g} against {guess:.4g}{_spread(outputs)}"),
            ),
            remedies=(remedy("smaller-first-outputs", layer=_last_layer(record), ratio=f"{ratio:.3g}",
                             factor=f"{_factor(outputs, targets):.2g}"),),
        )  # fmt: skip


def _undecided(known: dict[str, Any], course: LossCourse | None) -> float | None:
    """Loss of equal probabilities for all classes, or of the mean of the targets; None where it is not known."""
    function, classes = known.get("function"), known.get("classes") or 0
    if course is None or known.get("reduction") != "mean":
        return None
    if function in ("cross_entropy", "nll_loss"):
        return math.log(classes) if classes > 1 else None
    if str(function).startswith("binary_cross_entropy"):
        return None if {"weight", "pos_weight"} & set(known.get("arguments", ())) else math.log(2)
    return course.chance


def _spread(outputs: Range | None) -> str:
    return f"; outputs have a deviation of {outputs.sd:.3g}" if outputs is not None else ""


def _last_layer(record: RunRecord) -> str:
    layers: list[dict[str, Any]] = [p for p in record.facts.get("parameters", ()) if p["kind"] == "weight"]
    return str(max(layers, key=lambda p: int(p["order"]))["module"] or "model") if layers else "model"


def _factor(outputs: Range | None, targets: Range | None) -> float:
    """What brings the outputs to a tenth of unit scale, or of that of the targets."""
    wanted = 0.1 * (targets.sd if targets is not None and targets.sd > 0 else 1.0)
    return min(1.0, wanted / outputs.rms) if outputs is not None and outputs.rms > 0 else 0.1
