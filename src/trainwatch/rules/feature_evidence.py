"""Features in words, and remedies with their names, as TW111 tells of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.features import Features

NAMED = 5
IN_CODE = 50  # columns; more would be no code to read


def in_words(look: Features, which: np.ndarray) -> str:
    """The first few features by name, and how many more there are."""
    names = ", ".join(look.names[j] for j in which[:NAMED])
    return names + (f" and {len(which) - NAMED} more" if len(which) > NAMED else "")


def shown(look: Features, which: np.ndarray) -> dict[str, Any]:
    """What the remedy `drop-features` is given."""
    return {"names": in_words(look, which), "columns": [int(j) for j in which[:IN_CODE]]}


def missing(look: Features, which: np.ndarray) -> Remedy:
    """The remedy `fill-missing` for these features, with the values that stand for what is not known."""
    codes = sorted({float(look.code[j]) for j in which if np.isfinite(look.code[j])})
    return remedy("fill-missing", **shown(look, which), codes=codes)


def places_of(record: RunRecord, split: str) -> dict[int, str]:
    """Feature -> the first samples in which it is not a number."""
    known = record.facts.get("not_numbers", {}).get(split, {})
    return {int(j): "samples " + ", ".join(map(str, places)) for j, places in known.items()}
