"""TW703: the loss is given something else than it is made for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence, Remedy, Severity
from trainwatch.record import RunRecord
from trainwatch.rules.base import NotChecked, Predicate, Rule, always
from trainwatch.rules.loss_shapes import REGRESSION, broadcast_by_hand, broadcast_by_torch, one_unit, over_samples
from trainwatch.rules.output_remedies import classify, drop_activation, fit_range, log_probabilities
from trainwatch.symptoms.ranges import looks_like_classes, range_of

LOGITS = ("cross_entropy", "binary_cross_entropy_with_logits")
SQUASHING = ("Softmax", "Sigmoid", "Tanh", "Relu", "Softplus", "Hardsigmoid", "Hardtanh")
NO_LOG = ("Softmax", "Sigmoid", "Tanh", "Relu", "Addmm", "Mm", "Linear", "Convolution")
REACH = {"Softmax": (0.0, 1.0), "Sigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0),
         **dict.fromkeys(("Relu", "Softplus", "Exp", "Abs"), (0.0, np.inf))}  # fmt: skip
EFFECTS = ("TW101", "TW102", "TW107", "TW108", "TW201", "TW202", "TW203", "TW204", "TW205", "TW206", "TW208", "TW301",
           "TW302", "TW303", "TW304", "TW305", "TW306", "TW401", "TW402", "TW403", "TW601", "TW602", "TW603",
           "TW604")  # fmt: skip


@dataclass(frozen=True)
class LossOutputMismatch(Rule):
    """The last layer, the loss and the targets do not go together.

    ## Symptom
    One of: an activation before a loss that wants logits (softmax twice); probabilities where log-probabilities are
    wanted; a softmax or cross-entropy over a single unit, a log-softmax over the samples of a batch; outputs and
    targets that are broadcast against each other; targets that the last activation cannot reach by more than `slack` of
    their deviation; labels outside 0 to 1 in a binary loss; class numbers as the targets of a regression.

    ## Why it hurts
    The loss has its minimum somewhere else than the task, or cannot get near it: a second softmax keeps the loss of K
    classes above ln(e + K - 1) - 1. Training runs without an error message, and never gets good.

    ## How it is measured
    The autograd graph tells which operation made what the loss was given, and of a loss written by hand the shape of
    the difference that it is made of. Shapes are noted at the first training batch, `output_stats` and `target_stats`
    at steps 0, 1, 3, 7 ... Targets are taken for class numbers where they are whole, begin at 0, and are spread as
    `classes` or fewer equally frequent classes are.

    ## Remedies
    Drop the activation, give log-probabilities, one unit per class, equal shapes, or targets within reach: as the
    mistake found asks for.

    ## Not a fault when
    An activation belongs to the loss: sigmoid before `BCELoss`, log-softmax before `NLLLoss` or before cross-entropy,
    which it leaves unchanged; a bounded output whose targets are within its bounds.

    ## Sources
    §6; documentation of `torch.nn.CrossEntropyLoss`; Zhang et al., "An empirical study on TensorFlow program bugs"
    (2018); Humbatova et al., "Taxonomy of real faults in deep learning systems" (2020).
    """

    code = "TW703"
    name = "loss-output-mismatch"
    severity = Severity.ERROR
    section = "§6"
    at_first_look = True
    explains: ClassVar[dict[str, Predicate]] = dict.fromkeys(EFFECTS, always)

    slack: float = 0.1
    classes: int = 30

    def check(self, record: RunRecord) -> Iterator[Diagnosis]:
        losses, by_hand = record.facts.get("loss") or {}, broadcast_by_hand(record)
        if by_hand is not None:
            yield self._found("loss", *by_hand)
        elif not losses:
            raise NotChecked("no loss function was seen, so it is not known what it was given")
        looks = (self._classes, self._activation, self._shapes, self._reach, self._class_numbers)
        for stream, known in losses.items():
            if "last_operation" not in known:
                continue
            found = (look(record, stream, known) for look in looks)
            yield from [d for d in found if d is not None][:1]

    def _classes(self, record: RunRecord, stream: str, known: dict[str, Any]) -> Diagnosis | None:
        found = one_unit(record, stream, known) or over_samples(known)
        return found and self._found(stream, *found)

    def _activation(self, record: RunRecord, stream: str, known: dict[str, Any]) -> Diagnosis | None:
        function, last, width = known["function"], known["last_operation"], known["classes"] or 2
        if function in LOGITS and last in SQUASHING:
            twice = {"Softmax": "cross_entropy", "Sigmoid": LOGITS[1]}.get(last) == function
            what = f"{last.lower()} before {function}, which " + (
                f"applies {last.lower()} itself" if twice else "wants unbounded logits"
            )
            floor = {"Softmax": 0.0, "Sigmoid": 0.0, "Tanh": -1.0}.get(last)
            lowest = None if floor is None else float(np.log(np.e + (width - 1) * np.exp(floor)) - 1)
            name = "lowest mean loss that the net can reach"
            note = "logits lie between the bounds of the activation" if lowest is not None else "no logit is negative"
            return self._found(stream, what, drop_activation(last, function), Evidence(name, lowest, note=note))
        if function == "nll_loss" and last in NO_LOG:
            what = "nll_loss is given " + ("probabilities" if last == "Softmax" else "raw outputs") + ", not logarithms"
            outputs = range_of(record, "output_stats", stream)
            high = outputs.high if outputs else None
            return self._found(stream, what, log_probabilities(last), Evidence("largest output", high, 0.0))
        return None

    def _shapes(self, record: RunRecord, stream: str, known: dict[str, Any]) -> Diagnosis | None:
        found = broadcast_by_torch(known)
        return found and self._found(stream, *found)

    def _reach(self, record: RunRecord, stream: str, known: dict[str, Any]) -> Diagnosis | None:
        targets, function = range_of(record, "target_stats", stream), known["function"]
        binary = function.startswith("binary_cross_entropy")
        if targets is None or not (binary or function in REGRESSION):
            return None
        low, high = (0.0, 1.0) if binary else REACH.get(known["last_operation"], (-np.inf, np.inf))
        beyond = max(
            low - (targets.least if binary else targets.low), (targets.most if binary else targets.high) - high
        )
        if beyond <= (0.0 if binary else self.slack * targets.sd):
            return None
        name = function if binary else f"a {known['last_operation'].lower()} at the end of the net"
        what = f"targets from {targets.low:.3g} to {targets.high:.3g}, while {name} reaches {low:g} to {high:g}"
        evidence = Evidence("targets beyond reach by", beyond, 0.0 if binary else self.slack * targets.sd)
        return self._found(stream, what, fit_range(known["last_operation"], targets, binary), evidence)

    def _class_numbers(self, record: RunRecord, stream: str, known: dict[str, Any]) -> Diagnosis | None:
        targets, shape = range_of(record, "target_stats", stream), known["input_shape"] or []
        if targets is None or known["function"] not in REGRESSION or (len(shape) > 1 and shape[-1] != 1):
            return None
        if not looks_like_classes(targets, self.classes):
            return None
        what = f"the numbers of {targets.most + 1:.0f} classes are the targets of {known['function']}"
        evidence = Evidence("share of whole numbers among the targets", targets.whole, note="equally frequent, from 0")
        return self._found(stream, what, classify(record, stream), evidence, Severity.WARNING)

    def _found(
        self, stream: str, what: str, remedies: tuple[Remedy, ...], evidence: Evidence,
        severity: Severity = Severity.ERROR,
    ) -> Diagnosis:  # fmt: skip
        return self.diagnose(what, margin=float("inf"), severity=severity, where=(stream,), onset_step=0,
                             evidence=(evidence,), remedies=remedies)  # fmt: skip
