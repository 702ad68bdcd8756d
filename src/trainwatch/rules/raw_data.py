"""Scales judged on the data alone, before a training could show whether it copes with them (TW107, TW108)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trainwatch.diagnosis import Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.features import features
from trainwatch.symptoms.ranges import Range, range_of

CHANCE = 1e-3  # few samples of a heavy tail reach far further or less far, now and then
ALIKE = 0.9  # of the features, which share a scale where the others are odd ones


def raw_inputs(record: RunRecord, off: bool, uneven: float, differs: float, extreme: float) -> Iterator[dict[str, Any]]:
    """What the scales of an audited data set tell, as the fields of diagnoses.

    Args:
        record: Of an audit.
        off: Whether the inputs are on no scale to train on.
        uneven: How many times the median scale is odd beside features that share one.
        differs: How many times wider or narrower validation is scaled otherwise; features still share a scale.
        extreme: Root mean square, or scale over the median one, of which no table is collected.
    """
    train, val = (range_of(record, "input_stats", split) for split in ("train", "val"))
    if train is None:
        return
    if val is not None and (ratio := times_wider(record, "inputs", train, val)) > differs:
        seen = f"{val.low:.3g} to {val.high:.3g}"
        usual = f"{train.low:.3g} to {train.high:.3g}"
        yield {
            "summary": f"nine in ten entries of the validation inputs lie from {seen}, of those of training from "
            f"{usual}",
            "margin": float("inf"),
            "where": ("validation inputs",),
            "evidence": (Evidence("scale of validation inputs against training inputs", ratio, differs, unit="times"),),
            "remedies": (
                remedy("same-preparation", seen=f"Nine in ten entries are {seen}, in training {usual}"),
            ),
        }  # fmt: skip
    odd, times = odd_features(record, uneven, differs), train.largest / train.median if train.median > 0 else 1.0
    if not off and not odd:
        return
    warns = bool(odd) or max(times, train.rms) > extreme
    told = f"; {odd[0][0]} is {odd[0][1]:.3g} times as large as most features, which share a scale" if odd else ""
    spread = f", the largest feature {times:.3g} times the median one" if times > uneven else ""
    yield {
        "summary": f"inputs have a root mean square of {train.rms:.3g}{spread}{told}: scale them before training",
        "margin": float("inf") if warns else 0.0,
        "severity": Severity.WARNING if warns else Severity.INFO,
        "where": tuple(name for name, _ in odd[:10]) or ("inputs",),
        "evidence": (
            Evidence("largest over median feature", times, uneven, where="inputs"),
            Evidence("root mean square of the inputs", train.rms, where="inputs",
                     note=f"5 to 95 %: {train.low:.3g} to {train.high:.3g}"),
            *(Evidence("scale over the median one", ratio, uneven, where=name) for name, ratio in odd[:5]),
        ),
        "remedies": (
            remedy("normalise-inputs", rms=f"{train.rms:.3g}", mean=f"{train.mean:.4g}", std=f"{train.sd:.4g}"),
        ),
    }  # fmt: skip


def odd_features(record: RunRecord, uneven: float, differs: float) -> list[tuple[str, float]]:
    """Features far larger than others that share a scale: (name, times the median), the largest first.

    None where the features are on all sorts of scales: that is a table as it was collected.
    """
    look = record.memo(features).get("train")
    if look is None or len(look) < 3:
        return []
    scale = np.hypot(look.mean, look.sd)
    known = scale[np.isfinite(scale)]
    middle = float(np.median(known)) if len(known) else 0.0
    if not middle or np.quantile(known, ALIKE, method="lower") > differs * middle:
        return []
    found = np.flatnonzero(np.nan_to_num(scale) > uneven * middle)
    return sorted(((look.names[j], float(scale[j] / middle)) for j in found), key=lambda row: -row[1])


def times_wider(record: RunRecord, what: str, first: Range, second: Range) -> float:
    """How many times nine in ten entries reach, or are spread, further in one part than in the other: 1 or more.

    1 as well where chance alone makes samples so different in size.
    """
    if record.facts.get("scale_chance", {}).get(what, 1.0) > CHANCE:
        return 1.0
    reach = sorted(max(abs(r.low), abs(r.high)) for r in (first, second))
    spread = sorted(r.high - r.low for r in (first, second))
    return max(1.0, *(most / max(least, 1e-30) for least, most in (reach, spread) if most > 0), 1.0)
