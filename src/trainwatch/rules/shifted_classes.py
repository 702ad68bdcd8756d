"""How TW109 shows that classes are shared out, or named, otherwise in validation than in training."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainwatch.diagnosis import Evidence, Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.classes import class_names
from trainwatch.symptoms.renamed_classes import Renamed
from trainwatch.symptoms.shift import ClassShift

SHOWN = 3
LABELS = ("validation labels",)


def shared_otherwise(record: RunRecord, shift: ClassShift, unseen: float, shares: float) -> dict[str, Any]:
    """The fields of a diagnosis: more than `unseen` are of new classes, or shares differ by more than `shares`."""
    names, new = class_names(record, len(shift.val)), shift.unseen > unseen
    order = np.argsort(-np.abs(shift.train - shift.val))[:SHOWN]
    listed = ", ".join(f"{names[i]} {shift.train[i]:.1%} against {shift.val[i]:.1%}" for i in order)
    return {
        "summary": f"{shift.unseen:.1%} of the validation samples are of classes that were never trained on: {listed}"
        if new else f"classes are shared out otherwise in training than in validation: {listed}",
        "severity": Severity.WARNING if new else Severity.INFO,
        "margin": min((shift.unseen - unseen) / 0.01, 1e3) if new else 0.0,
        "where": ("validation classes",),
        "onset_step": 0,
        "evidence": (
            Evidence("share of validation samples of unseen classes", shift.unseen, unseen),
            Evidence("total variation between the shares of classes", shift.distance, shares,
                     note=f"chance of that in one and the same population: {shift.chance:.2g}"),
        ),
        "remedies": (remedy("split-anew"),),
    }  # fmt: skip


def named_otherwise(record: RunRecord, found: Renamed, least: float, errors: float) -> dict[str, Any]:
    """The fields of a diagnosis: by other names the network is right by `least` more, beyond standard errors."""
    names, moved = class_names(record, 1 + max(max(pair) for pair in found.moved.items())), list(found.moved.items())
    listed = ", ".join(f"what validation calls {names[i]} the network calls {names[k]}" for i, k in moved[:SHOWN])
    more = f" and {len(moved) - SHOWN} more" if len(moved) > SHOWN else ""
    return {
        "summary": f"classes are named otherwise in validation than in training: {listed}{more}; renamed like that, "
        f"accuracy in validation is {found.renamed:.1%}, not {found.accuracy:.1%}",
        "margin": min((found.gain - least) / max(found.error, 1e-9) - errors, 1e3),
        "where": LABELS,
        "onset_step": 0,
        "evidence": (
            Evidence("accuracy gained by renaming the classes of validation", found.gain, least, step=found.step,
                     note=f"{found.renamed:.3g} against {found.accuracy:.3g}, standard error {found.error:.2g}"),
        ),
        "remedies": (remedy("same-class-numbers", renamed=found.moved, now=found.accuracy, then=found.renamed),),
    }  # fmt: skip
