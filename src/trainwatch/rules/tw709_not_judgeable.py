"""TW709: the run shows too little to be judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import Rule
from trainwatch.symptoms.curves import passes, primary_stream
from trainwatch.symptoms.subject import before_training


@dataclass(frozen=True)
class NotJudgeable(Rule):
    """A run without faults found may be a run at which nothing could be seen.

    ## Symptom
    No training loss, no validation data, fewer than `min_steps` optimiser steps, or fewer than `min_passes` validation
    passes.

    ## Why it hurts
    Silence looks like health. Overfitting and neglected classes cannot be seen without held-out data, and no trend
    can be told from noise in a few steps.

    ## How it is measured
    By counting what was recorded. Passes over training data are no validation, and neither is one before the first
    step. Before training: whether there will be validation, where that is told.

    ## Remedies
    What to add so that the next run can be judged.

    ## Not a fault when
    The run was a trial of the wiring. This is always info, never a finding.

    ## Sources
    §2, §11 (a fine-tuning recipe without validation).
    """

    code = "TW709"
    name = "not-judgeable"
    severity = Severity.INFO
    section = "§2"

    min_steps: int = 20
    min_passes: int = 3

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        if before_training(record):
            yield from self._before_training(record)
            return
        stream, steps = primary_stream(record), record.steps
        seen = int((passes(record, "val_loss", stream)[0] > 0).sum()) if stream else 0
        lacking: list[tuple[str, Evidence, Remedy]] = []
        if not record.has("train_loss"):
            lacking.append(("no training loss was seen", Evidence("training losses seen", 0), remedy("show-loss")))
        if steps < self.min_steps:
            evidence = Evidence("optimiser steps", steps, threshold=self.min_steps)
            advice = remedy("run-longer", steps=self.min_steps, seen=steps)
            lacking.append((f"only {steps} of {self.min_steps} optimiser steps", evidence, advice))
        if seen < self.min_passes:
            text = f"only {seen} of {self.min_passes} validation passes" if seen else "no validation loss was seen"
            evidence = Evidence("validation passes", seen, threshold=self.min_passes)
            lacking.append((text, evidence, remedy("add-validation", seen=text, passes=self.min_passes)))
        if lacking:
            texts, evidences, remedies = zip(*lacking, strict=True)
            yield self.diagnose(
                f"too little to judge: {'; '.join(texts)}",
                margin=float("inf"),
                where=("run",),
                onset_step=0,
                evidence=evidences,
                remedies=remedies,
            )

    def _before_training(self, record: RunRecord) -> Iterator[Diagnosis]:
        """Nothing was trained yet: what counts is whether anything will be seen."""
        if record.facts.get("validated") is False:
            yield self.diagnose(
                "there is no validation: overfitting and neglected classes will not be seen",
                margin=float("inf"),
                where=("run",),
                onset_step=0,
                evidence=(Evidence("validation passes", 0, threshold=self.min_passes),),
                remedies=(remedy("add-validation", seen="there is none", passes=self.min_passes),),
            )
