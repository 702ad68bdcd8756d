"""How TW109 shows what sets validation inputs apart from training inputs, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.experiments import Evaluated
from trainwatch.symptoms.scaled_otherwise import Scaled
from trainwatch.symptoms.shift import InputShift


def prepared_otherwise(found: Scaled, differs: float) -> dict[str, Any]:
    """The fields of a diagnosis: validation inputs are `differs` times wider or narrower, or more."""
    seen, usual = (f"{r.low:.3g} to {r.high:.3g}" for r in (found.seen, found.usual))
    ended = found.losses
    note = "" if ended is None else f"validation loss {ended[0]:.3g} at the end, training loss {ended[1]:.3g}"
    return {
        "summary": f"nine in ten entries of the validation inputs lie from {seen}, of those of training from {usual}",
        "margin": float("inf"),
        "where": ("validation inputs",),
        "onset_step": found.seen.step,
        "evidence": (
            Evidence("scale of validation inputs against training inputs", found.ratio, differs, unit="times",
                     where="inputs", step=found.seen.step, note=note),
        ),
        "remedies": (remedy("same-preparation", seen=f"Nine in ten entries are {seen}, in training {usual}"),),
    }  # fmt: skip


def told_apart(record: RunRecord, found: InputShift, apart: float, further: float) -> tuple[Evidence, Evidence]:
    """By how much inputs can be told apart, and by how much validation lies further away."""
    named = zip(_names(record, found), found.features, strict=True)
    means = ", ".join(f"{name}: {a:.3g} against {b:.3g}" for name, (*_, a, b) in named)
    votes = Evidence(
        "AUC of validation against training inputs, lower bound", found.told.low, apart, step=found.step,
        note=f"estimate {found.told.auc:.3f}; {found.train} training and {found.val} validation samples; means of what "
        f"tells most in training and validation: {means}",
    )  # fmt: skip
    distance = Evidence(
        "AUC of the distance to training samples, lower bound", found.further.low, further, step=found.step,
        note=f"estimate {found.further.auc:.3f}; above 0.5: further away",
    )  # fmt: skip
    return votes, distance


def losses_apart(look: Evaluated | None, worse: float, errors: float) -> Evidence:
    """How much worse the network does on validation samples."""
    note = "not measured" if look is None else f"{look.validation:.3g} against {look.training:.3g}"
    return Evidence("validation loss above training loss, in standard errors", worse, errors, note=note)


def once_aligned(found: InputShift, aligned: float) -> Iterator[Evidence]:
    """What still tells them apart once each feature has the same mean and deviation in both, where that was asked."""
    if found.aligned is not None:
        note = "of features moved and scaled to the same mean and deviation; below that, preparing them set them apart"
        yield Evidence("AUC of aligned inputs", found.aligned.auc, aligned, step=found.step, note=note)


def shift_remedies(record: RunRecord, found: InputShift, aligned: float) -> tuple[Remedy, ...]:
    """To prepare them alike comes first, unless inputs can be told apart that are aligned feature by feature."""
    train, val = (", ".join(f"{row[k]:.3g}" for row in found.features) for k in (2, 3))
    names = ", ".join(_names(record, found))
    told = f"What tells them most apart ({names}) is {val} on average in validation and {train} in training"
    both = remedy("same-preparation", seen=told), remedy("split-anew")
    return both[::-1] if found.aligned is not None and found.aligned.auc > aligned else both


def _names(record: RunRecord, found: InputShift) -> list[str]:
    given = dict(enumerate(record.facts.get("feature_names") or ()))
    return [given.get(i, f"feature {i}") for i, *_ in found.features]
