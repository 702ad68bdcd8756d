"""The remedies of §1 with the numbers of a run, for the rules on uneven classes."""

from __future__ import annotations

import numpy as np

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.threshold_remedies import measured_best, threshold_remedy
from trainwatch.symptoms.balance import LOGITS, adjustment_in_use, sampler_in_use, weights_in_use
from trainwatch.symptoms.classes import Confusion, TrainClasses, average_precision, binary_scores
from trainwatch.symptoms.curves import Array

BETA = 0.999  # of the effective number of samples (1 - beta^n) / (1 - beta): beyond some 1000, more tell little new
OPTIONS = {"ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0}  # of such, with their defaults
OF_PROBABILITIES = """lambda outputs, targets: torch.nn.functional.binary_cross_entropy(
    outputs, targets, weight=1 + (weight - 1) * targets
)"""
LITERAL = 50  # classes up to which a vector is written out


def balance_remedies(
    record: RunRecord, classes: TrainClasses, table: Confusion | None, rare: Array, ratio: float, anomaly_share: float
) -> tuple[Remedy, ...]:
    """What to do about the rare classes, the best fit first and what is in use last.

    Args:
        record: The run.
        classes: Training targets per class.
        table: The last validation pass, if predictions were seen.
        rare: Indices of the rare classes.
        ratio: Largest over smallest class that is to be reached by collecting.
        anomaly_share: Share of a class below which anomaly detection is offered.
    """
    counts, names = classes.counts, classes.names
    listed = ", ".join(f"class {names[i]}" for i in rare[:5]) + (" ..." if len(rare) > 5 else "")
    share = float(counts[rare].min() / counts.sum())
    weighted, sampled, adjusted = weights_in_use(record), sampler_in_use(record), adjustment_in_use(record)
    inverse = np.divide(counts.sum(), len(classes.present) * counts, out=np.zeros(len(counts)), where=counts > 0)
    effective = np.divide(1, 1 - BETA**counts, out=np.zeros(len(counts)), where=counts > 0)
    effective *= len(classes.present) / effective.sum()
    criterion, of_positives = _criterion(record, len(counts))
    tuned = "# In use already: next, tune the weights of the rare classes by their recall."
    counted = "\nn = torch.bincount(train_targets).double()" if len(counts) > LITERAL else ""
    found = [
        *_adjusted(record, counts, listed, adjusted, weighted or sampled),
        remedy(
            "class-weights",
            already_in_use=weighted,
            rare=listed,
            inverse=f"{inverse[1] / inverse[0]:.4g}"
            if of_positives
            else _literal(inverse, "(n.sum() / (n.count_nonzero() * n)).tolist()"),
            effective=f"{effective[1] / effective[0]:.4g}"
            if of_positives
            else _literal(effective, f"(1 / (1 - {BETA}**n)).tolist()"),
            scale=", of a positive" if of_positives else ", 1 for a class of average size",
            criterion=criterion,
            beta=BETA,
            next_step=(tuned if weighted else "# Not in use yet; not together with resampling.") + counted,
        ),
        remedy(
            "resample",
            already_in_use=sampled,
            rare=listed,
            share=share,
            inverse=_literal(inverse, "(n.sum() / (n.count_nonzero() * n)).tolist()"),
            next_step=(tuned if sampled else "# Not in use yet; not together with class weights.") + counted,
        ),
        remedy("augment-minority", rare=listed, short=_short(counts.max() - counts, classes, rare)),
        remedy(
            "collect-minority", rare=listed, ratio=ratio, short=_short(counts.max() / ratio - counts, classes, rare)
        ),
    ]
    if adjusted:  # weights or a sampler beside it would correct twice
        found = [r for r in found if r.id not in ("class-weights", "resample") or r.already_in_use]
    if table is not None:
        scores = record.memo(binary_scores)
        found.append(
            remedy(
                "better-metric",
                accuracy=table.accuracy,
                majority=table.majority_rate,
                balanced=table.balanced_accuracy,
                macro_f1=table.macro_f1,
                mcc=table.mcc,
                pr_auc=f"{average_precision(*scores):.3f}" if scores else "not measured",
            )
        )
    # A threshold below one half suits a rare positive class and calibrated scores: reweighted ones are not.
    if len(counts) == 2 and 1 in rare and not (weighted or sampled or adjusted):
        moved = threshold_remedy(record, 1, measured_best(record))
        found += [] if moved is None else [moved]
    if share < anomaly_share:
        found.append(remedy("reframe-as-anomaly", rare=f"class {names[int(rare[counts[rare].argmin()])]}", share=share))
    return tuple(sorted(found, key=lambda r: r.already_in_use))


def _adjusted(record: RunRecord, counts: Array, rare: str, in_use: bool, corrected: bool) -> list[Remedy]:
    """The remedy `logit-adjustment`, where the loss takes logits of classes and nothing else corrects for their shares.

    Source: Menon et al., "Long-tail learning via logit adjustment" (2021); that weights lose their effect: Byrd and
    Lipton, "What is the effect of importance weighting in deep learning?" (2019).
    """
    losses = [loss for loss in record.facts.get("loss", {}).values() if loss.get("function") in LOGITS]
    if (corrected and not in_use) or not losses:
        return []
    counted = f"torch.bincount(train_targets.flatten(), minlength={len(counts)}).tolist()"
    known = losses[0].get("arguments") or {}
    options = ", ".join(f"{name}={known[name]!r}" for name, usual in OPTIONS.items() if known.get(name, usual) != usual)
    return [
        remedy("logit-adjustment", already_in_use=in_use, rare=rare, counts=_literal(counts, counted), options=options)
    ]


def _criterion(record: RunRecord, classes: int) -> tuple[str, bool]:
    """Code of the run's criterion with weights, and whether it takes a single one: that of the positives."""
    used = {str(loss.get("function")) for loss in record.facts.get("loss", {}).values()}
    if "binary_cross_entropy_with_logits" in used:
        return "torch.nn.BCEWithLogitsLoss(pos_weight=weight)", classes == 2
    if "binary_cross_entropy" in used:
        return OF_PROBABILITIES, classes == 2
    return f"torch.nn.{'NLLLoss' if 'nll_loss' in used else 'CrossEntropyLoss'}(weight=weight)", False


def _short(missing: Array, classes: TrainClasses, rare: Array) -> str:
    unit = "samples" if classes.per_epoch else "of the targets seen"
    lacking = [f"{classes.names[i]}: {int(np.ceil(missing[i]))}" for i in rare if missing[i] > 0]
    return f"{', '.join(lacking) or 'none'} more {unit}"


def _literal(weights: Array, formula: str) -> str:
    """The weights as a list to paste; beyond `LITERAL` of them, the expression that computes them."""
    if len(weights) > LITERAL:
        return formula
    return "[" + ", ".join(f"{w:.4g}" for w in weights) + "]"
