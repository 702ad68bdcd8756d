"""What labels are held against, as TW106 shows it, and the samples that the remedy `clean-data` names."""

from __future__ import annotations

from collections.abc import Iterator

from trainwatch.diagnosis import Evidence, Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.classes import class_names
from trainwatch.symptoms.labels import Contrast, LabelNoise, Suspect, label_noise
from trainwatch.symptoms.subject import is_of_data
from trainwatch.symptoms.unrelated import Unrelated

NAMED = {"train": "training", "val": "validation"}
SHOWN = 5
FIRST = 20  # samples to look at where it is not known how many are wrong


def share_of_wrong(noise: LabelNoise, least: float) -> Evidence:
    """How many labels of one kind are wrong."""
    return Evidence(
        f"wrong {NAMED[noise.kind]} labels, lower bound", noise.low, least, where=NAMED[noise.kind],
        step=noise.step,
        note=f"estimate {noise.rate:.1%}, at most {noise.high:.1%}; {noise.samples} samples, "
        f"{noise.disagreeing:.1%} of them labelled unlike what a forest says; kappa {noise.agreement:.2f}",
    )  # fmt: skip


def contrast(found: Contrast, sure: float) -> Evidence:
    """How much more often training labels are unlike what a forest says."""
    return Evidence(
        "share of training labels unlike what a forest says, above that in validation", found.gap, sure * found.error,
        step=found.noise.step,
        note=f"standard error {found.error:.2g}; wrong are {found.noise.rate:.1%}, at least {found.noise.low:.1%}",
    )  # fmt: skip


def by_heart(found: Unrelated, learned: float, carried: float, agreement: float) -> tuple[Evidence, ...]:
    """What training learned, what of it served validation, and what a forest makes of the labels."""
    return (
        Evidence("share of a constant guess's loss that training got rid of", found.learned, learned,
                 note=f"standard error {found.learned_error:.2g}"),
        Evidence("the most that a pass got rid of", found.carried, carried, where="validation"),
        Evidence("agreement of training labels and a forest (kappa)", found.agreement, agreement, step=found.step,
                 note=f"standard error {found.agreement_error:.2g}; {found.samples} samples; "
                 f"of those of validation {found.elsewhere:.2f}"),
    )  # fmt: skip


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
