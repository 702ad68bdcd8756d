"""From a record to a report: run the rules, nest consequences under causes, say what could not be judged."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from trainwatch.config import Settings
from trainwatch.diagnosis import Diagnosis, Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.report import IN_PART, Report, Verdict
from trainwatch.rules import NotChecked, Rule, all_rules
from trainwatch.rules.base import MODEST, surely
from trainwatch.rules.calibrated import VERSION
from trainwatch.rules.confidence import confidence_of
from trainwatch.rules.tw709_not_judgeable import NotJudgeable
from trainwatch.symptoms.norms import norms_at_end
from trainwatch.symptoms.pictures import figures_of
from trainwatch.symptoms.regularised import regularised
from trainwatch.symptoms.tuning import extent_of

T = TypeVar("T")

MISSING = {
    "train_loss": "no training loss was seen",
    "grad_norm": "no gradient was measured",
    "val_loss": "no validation loss was seen",
    "val_train_mode": "no validation pass was seen",
    "val_confusion": "no validation predictions were seen",
    "train_classes": "no class labels were seen in training",
    "val_scores": "no scores of yes / no labels were seen in validation (several classes take the arg-max)",
    "target_stats": "no targets that are numbers were seen",
    "input_stats": "no inputs that are numbers were seen",
    "lr": "no learning rate was seen",
    "motion": "how far weights move was not measured",
    "weights": "how large weights are was not measured",
    "activity": "no probe saw activation functions",
    "hessian": "no probe measured the curvature of the loss",
    "sharpness": "no probe measured how sharply the loss is curved",
    "held_labels": "no probe compared the labels of held samples with those of samples like them",
    "duplicates": "samples are compared by trainwatch.audit alone",
    "feature_stats": "features are looked at by trainwatch.audit alone",
}
AUDIT = ("subject", "data", "looked_at", "suspects", "outliers", "duplicate_pairs", "near_duplicate_pairs")
YOURS = {  # parts that the user hands something to, and what is said where it cannot be used
    "on_finding": "the on_finding that was given",
    "observe_train": "observe_train with what it was given",
    "observe_val": "observe_val with what it was given",
    "epoch_end": "epoch_end with what it was given",
}
FAILED = "its capture failed with "  # how the reason begins why a quantity, or the rest of it, is missing
BASIC = ("train_loss", "val_loss", "grad_norm")  # a rule on any of these must have judged for a run to be healthy


def judge(record: RunRecord, settings: Settings, only: Collection[str] | None = None) -> Report:
    """Judge a record. The same record and settings give the same report.

    Args:
        record: The run, finished or not.
        settings: Which rules, and their thresholds.
        only: Codes that apply to what was recorded, where that is not a run but data or a model before training: the
            others are not mentioned, and any of them that judged makes the verdict.
    """
    found: list[Diagnosis] = []
    not_checked = {code: f"ignored: {why}" for code, why in settings.ignore.items() if only is None or code in only}
    judged: list[Rule] = []
    faults = list(record.faults)
    for rule in settings.active_rules():
        if only is not None and rule.code not in only:
            continue
        lacking = [q for q in rule.needs if not _has(q, record)]
        if lacking:
            not_checked[rule.code] = _why_missing(lacking[0], record)
            continue
        try:
            told = list(rule.check(record))
            judged.append(rule)
            if not told and (late := _put_off(rule, record)):
                not_checked[rule.code] = f"{IN_PART}there was no time for the experiment {late}"
            found += told
        except NotChecked as reason:
            not_checked[rule.code] = str(reason)
        except Exception as error:
            if settings.strict:
                raise
            faults.append(fault_of(f"rule {rule.code}", error, record.steps))
            not_checked[rule.code] = "switched off by a fault of its own (see TW000)"
    figures = _contained("figures", figures_of, record, settings, faults) or {}
    measured = _contained("facts of the report", _measured, record, settings, faults) or {}
    found = [_fitted(d, record) for d in found]
    diagnoses = [*nest(found), *(_internal(f) for f in faults)]
    return Report(
        verdict=_verdict(diagnoses, judged, record.steps if only is None else None),
        diagnoses=tuple(diagnoses),
        not_checked=dict(sorted(not_checked.items())),
        facts={**_shown(record), **measured, "calibration": VERSION},
        figures=figures,
        overhead=record.facts.get("overhead", {}),
    )


def _fitted(diagnosis: Diagnosis, record: RunRecord) -> Diagnosis:
    """When it was told first, and code for the framework that the run uses."""
    remedies = diagnosis.remedies
    if record.facts.get("framework") == "lightning":
        remedies = tuple(replace(r, how=r.lightning) if r.lightning else r for r in remedies)
    if "subject" in record.facts:  # not a training: no step was taken
        unstepped = tuple(replace(e, step=None) for e in diagnosis.evidence)
        return diagnosis.with_(onset_step=None, evidence=unstepped, remedies=remedies)
    return diagnosis.with_(reported_step=_reported(diagnosis, record), remedies=remedies)


def fault_of(part: str, error: BaseException, step: int) -> dict[str, Any]:
    """A contained fault of trainwatch itself, as the record keeps it."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {"part": part, "error": f"{type(error).__name__}: {error}", "traceback": text, "step": step}


def nest(found: list[Diagnosis]) -> list[Diagnosis]:
    """Put each diagnosis under the cause that explains it; none is deleted.

    Where several causes explain an effect, the worst and surest one takes it. Causes are ordered worst first, `MODEST`
    ones last among equals, then by margin as far as that tells, then facts (infinite margin) before statistics, then by
    code; and none before those that its rule is to come `after`.
    """
    rules = all_rules()
    order = sorted(range(len(found)), key=lambda i: _rank(found[i]))
    parent: dict[int, int] = {}
    for effect in order:
        for cause in order:
            if cause != effect and _accounts_for(rules, found[cause], found[effect]):
                parent[effect] = cause
                break

    def build(i: int) -> Diagnosis:
        below = tuple(build(j) for j in order if parent.get(j) == i)
        worst = max([found[i].severity, *(d.severity for d in below)], key=lambda s: s.rank)
        # A cause is at least as severe as what it leads to: it is what the user must act on.
        raised = found[i].with_(consequences=below, severity=worst)
        if found[i].severity < Severity.WARNING <= worst:  # a finding now, and as sure as one
            return raised.with_(confidence=confidence_of(raised.margin, raised.code, worst))
        return raised

    return _after_others(sorted((build(i) for i in order if i not in parent), key=_rank))


def _rank(d: Diagnosis) -> tuple[int, bool, float, bool, str, tuple[str, ...]]:
    return (-d.severity.rank, d.margin == MODEST, -surely(d), math.isfinite(d.margin), d.code, d.where)


def _after_others(roots: list[Diagnosis]) -> list[Diagnosis]:
    """Ranked causes, each behind those as severe that its rule names in `after`."""
    rules, waiting, placed = all_rules(), list(roots), list[Diagnosis]()
    while waiting:
        free = [
            d for d in waiting if not any(o.code in rules[d.code].after and o.severity >= d.severity for o in waiting)
        ]
        placed.append((free or waiting)[0])  # rules that wait for one another go by rank
        waiting.remove(placed[-1])
    return placed


def _accounts_for(rules: Mapping[str, type[Rule]], cause: Diagnosis, effect: Diagnosis) -> bool:
    told = (rules[cause.code].explains.get(effect.code), rules[effect.code].explained_by.get(cause.code))
    return any(predicate is not None and predicate(cause, effect) for predicate in told)


def _put_off(rule: Rule, record: RunRecord) -> str:
    """What a rule still asks for and the budget never allowed."""
    never = record.facts.get("put_off", ())
    return ", ".join(sorted({request.kind for request in rule.asks(record) if request.kind in never})) if never else ""


def _has(quantity: str, record: RunRecord) -> bool:
    """Whether it is known to the end: what broke off would be taken for where the run came to."""
    if str(record.facts.get("switched_off", {}).get(quantity, "")).startswith(FAILED):
        return False
    # Norms say nothing where it is not known whose they are.
    return record.has(quantity) and (quantity != "grad_norm" or "parameters" in record.facts)


def _why_missing(quantity: str, record: RunRecord) -> str:
    off = record.facts.get("switched_off", {})
    if quantity in off:
        return f"not measured: {off[quantity]}"
    if record.has(quantity):
        return "the parameters could not be read (see TW000)"
    return MISSING.get(quantity, f"{quantity} was not measured")


def _reported(d: Diagnosis, record: RunRecord) -> int:
    steps = [t["step"] for t in record.transitions if t["code"] == d.code and t["state"] == "reported"]
    return int(steps[-1]) if steps else record.steps


def _internal(fault: dict[str, Any]) -> Diagnosis:
    failed = YOURS.get(fault["part"], f"trainwatch's own {fault['part']}")
    return Diagnosis(
        code="TW000",
        name="internal-fault",
        severity=Severity.INFO,
        summary=f"{failed} failed and was switched off, the training goes on: {fault['error']}",
        where=(fault["part"],),
        onset_step=fault["step"],
        reported_step=fault["step"],
        margin=float("inf"),
        confidence=1.0,
        evidence=(Evidence("traceback", note=fault["traceback"], step=fault["step"]),),
    )


def _verdict(diagnoses: Iterable[Diagnosis], judged: list[Rule], steps: int | None) -> Verdict:
    """Of a run with so many steps; None: of what is no run."""
    if any(d.severity >= Severity.WARNING for d in diagnoses):
        return "findings"
    if steps is not None and steps < NotJudgeable.min_steps:  # which it says
        return "not-judged"
    if any(set(rule.needs) & set(BASIC) or steps is None for rule in judged):
        return "healthy"
    return "not-judged"


def _shown(record: RunRecord) -> dict[str, Any]:
    shown = ("run", "task", "loss", "validation", "optimizers", "regularisation", "class_names", "damage", "processes")
    facts = {topic: record.facts[topic] for topic in (*shown, *AUDIT) if topic in record.facts}
    if (facts.get("run") or {}).get("finished") is False:  # one that was killed could not say how far it had come
        facts["run"] = {**facts["run"], "steps": record.steps}
    return facts


def _measured(record: RunRecord) -> dict[str, Any]:
    told = (("norms", norms_at_end(record)), ("regularised", regularised(record)))
    facts: dict[str, Any] = {topic: value for topic, value in told if value}
    extent = record.memo(extent_of)
    if not extent.total:
        return facts
    tuning = {"trained": extent.trained, "frozen": list(extent.frozen), "tied": [list(names) for names in extent.tied]}
    return {**facts, "parameters": extent.total, "tuning": tuning}


def _contained(
    part: str, function: Callable[[RunRecord], T], record: RunRecord, settings: Settings, faults: list[dict[str, Any]]
) -> T | None:
    """What a function makes of a record; None, with its fault noted, where it raises."""
    try:
        return function(record)
    except Exception as error:
        if settings.strict:
            raise
        faults.append(fault_of(part, error, record.steps))
        return None
