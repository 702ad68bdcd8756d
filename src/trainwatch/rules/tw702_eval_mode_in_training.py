"""TW702: the model trains in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked, Predicate, Rule, no_remark

SHOWN = 5
EFFECTS = (
    "TW201",
    "TW202",
    "TW203",
    "TW204",
    "TW205",
    "TW208",
    "TW301",
    "TW302",
    "TW303",
    "TW401",
    "TW402",
    "TW403",
    "TW601",
    "TW602",
    "TW603",
    "TW604",
)


@dataclass(frozen=True)
class EvalModeInTraining(Rule):
    """Dropout and batch norm are switched off while the optimiser steps.

    ## Symptom
    At more than `share` of the steps (of at least `steps`) the whole model was in evaluation mode: from the start, or
    since a validation pass after which nobody called `model.train()`.

    ## Why it hurts
    Dropout drops nothing, so what was meant to regularise does not. Batch norm neither uses the statistics of its
    batch nor learns running ones: the net trains without normalisation, on whatever statistics it had by then.

    ## How it is measured
    When the optimiser steps, the mode of the model and of each dropout and batch-norm module in it is read. Nothing is
    said of models that have neither.

    ## Remedies
    `train-mode` at the start of each epoch.

    ## Not a fault when
    Single modules are in evaluation mode inside a model in training mode: batch norm frozen on purpose. Models of
    which nothing is trained may be in either mode. Batch norm had learned its statistics before, there is no dropout,
    and the mode is that from the first step on: they are kept, as suits few samples (a remark).

    ## Sources
    §6; documentation of `torch.nn.Module.train`; Ioffe and Szegedy, "Batch Normalization" (2015).
    """

    code = "TW702"
    name = "eval-mode-in-training"
    section = "§6"
    at_first_look = True
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, no_remark)

    share: float = 0.2
    steps: int = 4

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        known = record.facts.get("training_mode")
        if known is None:
            raise NotChecked("no optimiser step was seen")
        seen, wrong = known["steps"], known["evaluating"]
        if seen < self.steps or wrong <= self.share * seen:
            return
        modules, first = known["modules"], known["first"]
        named = ", ".join(modules[:SHOWN]) + (f" and {len(modules) - SHOWN} more" if len(modules) > SHOWN else "")
        since = "from the first step" if first == 0 else f"since step {first}, after a validation pass"
        affected = "batch norm neither uses nor learns statistics" if known["batch_norm"] else "dropout drops nothing"
        yield self.diagnose(
            f"the model was in evaluation mode at {wrong} of {seen} training steps, {since}: {affected}",
            severity=Severity.INFO if known.get("statistics_kept") else self.severity,
            margin=float("inf"),
            where=tuple(modules),
            onset_step=first,
            evidence=(
                Evidence("share of training steps in evaluation mode", wrong / seen, threshold=self.share, step=first,
                         note=f"affects {named}"),
            ),
            remedies=(remedy("train-mode", modules=named, wrong=wrong, seen=seen),),
        )  # fmt: skip
