"""TW701: dropout or batch norm is in training mode while validation runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import Predicate, Rule, not_later
from trainwatch.symptoms.curves import passes

SHOWN = 5


def _measured_another_network(cause: Diagnosis, effect: Diagnosis) -> bool:
    """A validation loss taken in training mode is that of another network: a rise in it must be looked at again."""
    return cause.severity >= Severity.WARNING and not_later(cause, effect)


@dataclass(frozen=True)
class TrainModeInValidation(Rule):
    """A module that acts differently in training was in training mode during validation.

    ## Symptom
    More than `share` of the batches of a validation pass met dropout or batch norm in training mode.

    ## Why it hurts
    Dropout makes the validation loss noisy and too high. Batch norm takes its statistics from the validation batch, so
    a prediction depends on its neighbours, and moves its running statistics towards validation data: information leaks
    into the model that is kept.

    ## How it is measured
    The mode of each such module is read while a validation batch passes through. It is an error where batch norm is
    concerned, a warning where the whole model, or what holds such a module, was left in training mode, and info where
    only single modules were switched on.

    ## Remedies
    `model.eval()` before validation; where batch norm was concerned, running statistics recomputed from training data.

    ## Not a fault when
    Dropout is left on deliberately to sample predictions (Monte Carlo dropout): reported as info. A stream over
    training data may run in either mode.

    ## Sources
    §6; Gal and Ghahramani, "Dropout as a Bayesian Approximation" (2016).
    """

    code = "TW701"
    name = "train-mode-in-validation"
    section = "§6"
    needs = ("val_train_mode",)
    at_first_look = True
    explains: ClassVar[dict[str, Predicate]] = {
        "TW201": _measured_another_network,
        "TW202": _measured_another_network,
    }

    share: float = 0.0

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        facts = record.facts.get("validation", {})
        for stream in record.keys("val_train_mode"):
            known = facts.get(stream, {})
            steps, shares = passes(record, "val_train_mode", stream)
            wrong = np.flatnonzero(shares > self.share)
            if known.get("kind", "val") == "val" and len(wrong):
                yield self._found(record, stream, known, steps, shares, wrong)

    def _found(
        self, record: RunRecord, stream: str, known: dict[str, Any], steps: Any, shares: Any, wrong: Any
    ) -> Diagnosis:
        modules = [str(m) or "the model itself" for m in known.get("modules_in_train_mode", ())]
        named = ", ".join(modules[:SHOWN]) + (f" and {len(modules) - SHOWN} more" if len(modules) > SHOWN else "")
        normal, root = known.get("batch_norm_in_train_mode", False), known.get("root_in_train_mode", False)
        root = root or known.get("parent_in_train_mode", False)
        onset, last = int(steps[wrong[0]]), int(steps[wrong[-1]])
        at, losses = passes(record, "val_loss", stream)
        right = np.isin(at, steps[shares <= self.share])
        advice = [remedy("eval-mode", modules=named or "dropout and batch norm")]
        if normal:
            advice.append(remedy("restore-running-statistics", modules=named or "the model"))
        return self.diagnose(
            f"{named or 'dropout or batch norm'} in training mode during {len(wrong)} of {len(steps)} passes "
            f"of {stream!r}" + ("" if root else ", the model itself in evaluation mode"),
            margin=float("inf"),
            severity=Severity.ERROR if normal else Severity.WARNING if root else Severity.INFO,
            where=tuple(modules) or (stream,),
            onset_step=onset,
            evidence=(
                Evidence(
                    "share of validation batches in training mode",
                    float(shares[wrong[-1]]),
                    threshold=self.share,
                    where=stream,
                    step=last,
                    note="batch norm is among them: it also learns from validation data" if normal else "",
                ),
                _loss("validation loss in training mode", at, losses, np.isin(at, steps[wrong]), stream),
                _loss("validation loss in evaluation mode", at, losses, right, stream),
            ),
            remedies=tuple(advice),
        )


def _loss(name: str, steps: Any, losses: Any, chosen: Any, stream: str) -> Evidence:
    if not chosen.any():
        return Evidence(name, where=stream, note="not measured: no pass ran in that mode")
    return Evidence(name, float(losses[chosen][-1]), where=stream, step=int(steps[chosen][-1]))
