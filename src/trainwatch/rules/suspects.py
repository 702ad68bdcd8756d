"""The samples whose labels are most likely wrong, as TW106 shows them and the remedy `clean-data` names them."""

from __future__ import annotations

from collections.abc import Iterator

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.classes import class_names
from trainwatch.symptoms.labels import LabelNoise, Suspect, label_noise
from trainwatch.symptoms.subject import is_of_data

NAMED = {"train": "training", "val": "validation"}
SHOWN = 5
FIRST = 20  # samples to look at where it is not known how many are wrong


def listed(record: RunRecord, noise: LabelNoise, names: tuple[str, ...]) -> Iterator[Evidence]:
    """The surest suspects, each with its place."""
    for suspect in noise.suspects[:SHOWN]:
        yield Evidence(
            "votes for another label",
            suspect.votes,
            where=place_of(record, noise.kind, suspect),
            step=suspect.step,
            note=f"labelled {names[suspect.given]} ({suspect.own:.0%} of the votes), looks like "
            f"{names[suspect.predicted]}",
        )


def clean_data(record: RunRecord) -> Remedy:
    """The remedy `clean-data` with the suspects, where the held samples were looked at."""
    looks = record.memo(label_noise)
    found = [(noise.kind, suspect) for noise in looks for suspect in noise.suspects[:SHOWN]]
    if not found:
        return remedy("clean-data", suspects="Which ones: not measured.", count=FIRST)
    names = class_names(record, 1 + max(max(s.given, s.predicted) for _, s in found))
    told = "; ".join(f"{place_of(record, k, s)} ({names[s.given]}, looks like {names[s.predicted]})" for k, s in found)
    samples = int(record.facts.get("run", {}).get("train_samples") or 0)
    rate = max((noise.rate for noise in looks if noise.kind == "train"), default=0.0)
    return remedy(
        "clean-data", suspects=f"Suspects among the samples looked at: {told}.", count=round(rate * samples) or FIRST
    )


def place_of(record: RunRecord, kind: str, suspect: Suspect) -> str:
    """Where a suspect is to be found, counted from 0; of audited files its path."""
    if is_of_data(record):
        files = record.facts.get("files", {}).get(kind, {})
        return str(files.get(str(suspect.place), f"{NAMED[kind]} sample {suspect.place}"))
    if kind == "train":
        return f"row {suspect.place} of the training batch at step {suspect.step}"
    return f"sample {suspect.place} of the validation pass" if suspect.place >= 0 else "a validation sample"
