"""What copies that learned with and without a regulariser tell TW206, and which regularisers they clear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from trainwatch.diagnosis import Diagnosis, Evidence
from trainwatch.record import RunRecord
from trainwatch.rules.base import MODEST, no_remark
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.experiments import Change, Release, releases
from trainwatch.symptoms.inventory import proximal_steps
from trainwatch.symptoms.losses import penalty_share
from trainwatch.symptoms.plateau import SURE, validation_trend
from trainwatch.symptoms.restraints import Restraint

NAMES = {
    "dropout": "dropout",
    "weight_decay": "weight decay",
    "penalty": "the term that is added to the loss",
    "proximal": "proximal steps",
}
LOOSENED = {"less-dropout": "dropout", "weaker-regularisation": "weight_decay"}  # by a remedy


def in_use(record: RunRecord, added: float) -> bool:
    """Whether anything regularises that copies may learn without, or a term makes up so much of what is trained on."""
    of_run = record.facts.get("regularisation", {})
    shown = any(map(of_run.get, (*NAMES, "penalties"))) or bool(proximal_steps(record))
    return shown or record.memo(penalty_share) >= added


def without(release: Release) -> str:
    """What leaving a regulariser out brought, in words."""
    shown, kind = release.validation or release.training, "validation" if release.validation else "training"
    told = f"; one that learns as the run does, to {shown.control:.3g}" if release.controlled else ""
    return (
        f"a copy that learns without {_names(release)} from the start gets to a {kind} loss of {shown.without:.3g}, "
        f"where the run ended at {shown.before:.3g}{told}"
    )


def by_a_term(cause: Diagnosis, effect: Diagnosis) -> bool:
    """Predicate: a term of the loss holds the net back, and is to be weaker before it is to select weights."""
    return no_remark(cause, effect) and "penalty" in cause.where and cause.margin > MODEST


def by_a_pull(cause: Diagnosis, effect: Diagnosis) -> bool:
    """Predicate: copies learn without what pulls weights to nothing, which takes gradients along."""
    return no_remark(cause, effect) and bool({"weight_decay", "penalty", "proximal"} & {*cause.where})


BY_KIND = {"TW301": by_a_pull, "TW501": by_a_term}  # what only some of the regularisers account for


def beyond(change: Change, guess: float, least: float, errors: float) -> float:
    """Standard errors by which a gain is beyond the least that counts, itself no less than so many of them."""
    if not np.isfinite(change.error):
        return -np.inf
    return (change.gain - max(least, errors * change.error)) / max(change.error, 1e-3 * guess)


def memorised(record: RunRecord, training: Change) -> bool:
    """Where no validation batch is held: the run's own validation loss lies above that of training, or cannot tell."""
    curve = record.memo(validation_curve)
    if curve is None:
        return False
    trend = record.memo(validation_trend)
    level = trend.end if trend is not None else float(curve.mean[-1])
    return not curve.same_criterion or level > training.before + training.gain / 2


def compared(release: Release, guess: float, least: float, errors: float) -> Iterator[Evidence]:
    """The numbers of a comparison.

    Args:
        release: What was left out.
        guess: Loss of a constant guess.
        least: Least gain, in the unit of the loss.
        errors: And in standard errors.
    """
    what = _names(release)
    for kind, change in (("validation", release.validation), ("training", release.training)):
        if change is None:
            yield Evidence(f"{kind} loss without {what}", note="not measured: no batch of it is held")
            continue
        note = f"{change.before:.3g} at the end of the run, {change.control:.3g} of a copy that learns as the run does"
        gained = f"{change.gain / guess:.0%} of the loss of a constant guess; standard error {change.error:.2g}"
        yield Evidence(f"{kind} loss without {what}", change.without, step=release.step, note=note)
        threshold = max(least, errors * change.error)
        yield Evidence(f"gain in {kind}", change.gain, threshold, step=release.step, note=gained)


def standing(record: RunRecord, causes: Iterable[Restraint], least: float) -> list[Restraint]:
    """Strong regularisers, less those that were left out without a gain in validation that counts."""
    causes = tuple(causes)
    strong = {LOOSENED[cause.remedy] for cause in causes}
    return [cause for cause in causes if not _cleared(record, LOOSENED[cause.remedy], strong, least)]


def _cleared(record: RunRecord, name: str, strong: set[str], least: float) -> bool:
    """Each copy without it fitted the training batches as well as the run, and was no better on others.

    Copies without a weak one besides tell of that one as well, and count where there are no others.
    """
    left_out = [release for release in record.memo(releases) if name in release.left_out]
    telling = [release for release in left_out if strong.issuperset(release.left_out)] or left_out
    return bool(telling) and all(_no_better(release, least) for release in telling)


def _no_better(release: Release, least: float) -> bool:
    training, validation = release.training, release.validation
    if validation is None or training.without > training.before + training.before_error:
        return False
    of_copies = validation.control - validation.without  # which differ in nothing else; not finite without a control
    return bool(of_copies + SURE * validation.control_error < least or validation.gain < validation.error)


def _names(release: Release) -> str:
    return " and ".join(NAMES[name] for name in release.left_out)
