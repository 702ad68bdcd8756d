"""The weights that a run began with: which are as good as one number, and how wide the others are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.symptoms.gradients import before_normalisation, gain_of

EQUAL = 0.01  # deviation over root mean square below which entries are as good as the same


def first_weights(record: RunRecord) -> list[dict[str, Any]]:
    """Weights of layers that are trained and that no normalisation follows, in order of execution."""
    known = [p for p in record.facts.get("parameters", ()) if p["kind"] in ("weight", "recurrent") and "std" in p]
    rescaled = before_normalisation(record.facts.get("modules", []))
    known = [p for p in known if p["trainable"] and len(p["shape"]) > 1 and p["module"] not in rescaled]
    return sorted(known, key=lambda p: int(p["order"]))


def is_equal(weight: dict[str, Any]) -> bool:
    """Whether all entries are as good as the same."""
    return bool(weight["numel"] > 1 and weight["std"] <= EQUAL * weight["norm"] / math.sqrt(weight["numel"]))


def median_gain(weights: list[dict[str, Any]]) -> float:
    """Of the weights that begin with a spread at all; NaN where none does."""
    spread = [gain_of(w) for w in weights if w["numel"] > 1 and not is_equal(w)]
    return float(np.median(spread)) if spread else math.nan
