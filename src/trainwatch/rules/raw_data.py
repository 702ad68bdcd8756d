"""Scales judged on the data alone, before a training could show whether it copes with them (TW107, TW108)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trainwatch.diagnosis import Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules.base import NotChecked
from trainwatch.symptoms.features import features
from trainwatch.symptoms.ranges import range_of
from trainwatch.symptoms.scaled_otherwise import times_wider

MOST = 0.9  # of the features, which share a scale where the others are odd ones


def raw_inputs(record: RunRecord, off: bool, uneven: float, alike: float, extreme: float) -> Iterator[dict[str, Any]]:
    """What the scales of an audited data set tell, as the fields of diagnoses.

    Args:
        record: Of an audit.
        off: Whether the inputs are on no scale to train on.
        uneven: How many times the median scale is odd beside features that share one.
        alike: How many times the median scale nine in ten features may have that share one.
        extreme: Root mean square, or scale over the median one, of which no table is collected.
    """
    train = range_of(record, "input_stats", "train")
    if train is None:
        return
    odd, times = odd_features(record, uneven, alike), train.largest / train.median if train.median > 0 else 1.0
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


def odd_features(record: RunRecord, uneven: float, alike: float) -> list[tuple[str, float]]:
    """Features far larger than others that share a scale: (name, times the median), the largest first.

    None where the features are on all sorts of scales: that is a table as it was collected.
    """
    look = record.memo(features).get("train")
    if look is None:
        return []
    scale = np.hypot(look.mean, look.sd)
    known = scale[np.isfinite(scale)]
    middle = float(np.median(known)) if len(known) else 0.0
    if not middle or np.quantile(known, MOST, method="lower") > alike * middle:
        return []
    found = np.flatnonzero(np.nan_to_num(scale) > uneven * middle)
    return sorted(((look.names[j], float(scale[j] / middle)) for j in found), key=lambda row: -row[1])


def raw_targets(record: RunRecord, small: float, large: float, differs: float) -> Iterator[dict[str, Any]]:
    """What the data alone tell of the scale of targets; see TW108 for the thresholds."""
    train, val = (range_of(record, "target_stats", split) for split in ("train", "val"))
    if train is None:
        raise NotChecked("the targets are not all finite numbers")
    ratio = 1.0 if val is None else times_wider(record, "targets", train, val)
    if ratio <= differs and small <= train.rms <= large:
        return
    told = f"; those of validation {val.mean:.3g} +- {val.sd:.3g}" if val and ratio > differs else ""
    yield {
        "summary": f"targets of {train.mean:.3g} +- {train.sd:.3g}{told}: scale before training",
        "margin": float("inf") if told else 0.0,
        "severity": Severity.WARNING if told else Severity.INFO,
        "where": ("targets",),
        "evidence": (
            Evidence("root mean square of the targets", train.rms, large, where="targets",
                     note=f"too small below {small:g}"),
            Evidence("scale of validation targets against training targets", ratio, differs),
        ),
        "remedies": (remedy("normalise-targets", mean=f"{train.mean:.4g}", std=f"{train.sd:.4g}"),),
    }  # fmt: skip
