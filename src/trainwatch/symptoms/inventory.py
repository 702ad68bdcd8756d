"""What regularises a run, as far as its model, optimiser, trainer, loader and loss show it (§4, §15)."""

from __future__ import annotations

from typing import Any

from trainwatch.record import RunRecord

SHOWN = 4  # names in a text


def inventory(record: RunRecord) -> dict[str, str]:
    """Each kind of regularisation in use, with its numbers in words, for `RunRecord.memo`.

    Clipping and averaging over accumulated batches are none. What a loop of one's own does without a trace, such as
    ending early or changing inputs by hand, is not seen.

    Returns:
        Of ``weight decay``, ``L1``, ``L2``, ``dropout``, ``normalisation``, ``augmentation``, ``early stopping`` and
        ``label smoothing`` those that were seen.
    """
    facts: dict[str, Any] = record.facts.get("regularisation") or {}
    penalties = facts.get("penalties") or {}
    proximal, decays = proximal_steps(record), _of_groups(record, "weight_decay")
    if not decays and facts.get("weight_decay"):
        decays = {"all": float(facts["weight_decay"])}
    dropped = {str(d["name"]): float(d["p"]) for d in facts.get("dropout") or ()}
    augmented = ((record.facts.get("loaders") or {}).get("train") or {}).get("augmentation") or []
    found = {
        "weight decay": _numbers(decays),
        "L1": _numbers(penalties.get("l1") or {}) or (_numbers(proximal) and f"proximal steps, {_numbers(proximal)}"),
        "L2": _numbers(penalties.get("l2") or {}),
        "dropout": _numbers(dropped),
        "normalisation": _names(facts.get("normalisation") or []),
        "augmentation": _names(augmented),
        "early stopping": "in the trainer" if facts.get("early_stopping") else "",
        "label smoothing": f"{facts['label_smoothing']:g}" if facts.get("label_smoothing") else "",
    }
    return {kind: text for kind, text in found.items() if text}


def proximal_steps(record: RunRecord) -> dict[str, float]:
    """Group of an optimiser -> L1 coefficient of the proximal steps that follow it; of those that have one."""
    return _of_groups(record, "l1")


def _of_groups(record: RunRecord, option: str) -> dict[str, float]:
    """Group of an optimiser -> an option of it, of those where that is not 0."""
    optimizers = record.facts.get("optimizers") or {}
    groups = ((f"{key}/{i}", g) for key, o in optimizers.items() for i, g in enumerate(o["groups"]))
    return {name: float(g[option]) for name, g in groups if g.get(option)}


def _numbers(values: dict[str, float]) -> str:
    """One number where all are alike, else the first few with their names."""
    if len({f"{v:.3g}" for v in values.values()}) == 1:
        return f"{next(iter(values.values())):.3g}"
    return _names([f"{value:.3g} in {name}" for name, value in values.items()])


def _names(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
