"""The seven ways of §17 to bring prior knowledge in, with what was measured on the run, the best fit first."""

from __future__ import annotations

import numpy as np

from trainwatch.diagnosis import Remedy
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.symptoms.learning_curve import LearningCurve, importances, worst_tenth

SHOWN = 3
CODE = {
    "shift": "x = torch.roll(x, int(torch.randint(-1, 2, ())), -1)",
    "flip": "x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x)",
    "rotation": "x = torchvision.transforms.RandomRotation(15)(x)",
    "noise": "x = x + 0.1 * x_train.std(0) * torch.randn_like(x)",
}
CHANGED = {
    "shift": "a shift by one pixel",
    "flip": "a flip",
    "rotation": "a turn by 15 degrees",
    "noise": "noise of a tenth of each feature's spread",
}
LITTLE = 0.01  # of the loss of a constant guess: a feature that is worth less hardly counts


def prior_remedies(record: RunRecord, curve: LearningCurve) -> tuple[Remedy, ...]:
    """All seven; those in use come last, those that only you can judge before them."""
    samples = int(record.facts.get("run", {}).get("train_samples") or curve.samples)
    found = [
        _augmentation(record),
        _pretrained(record, samples),
        _features(record, curve),
        _loss(record),
        _bayesian(record, samples),
        remedy("prior-rules"),
        remedy("distillation"),
    ]
    return tuple(sorted(found, key=lambda r: r.already_in_use))


def _augmentation(record: RunRecord) -> Remedy:
    """The change that costs the net most is the one that it knows least about."""
    rows = {name: record.latest("input_change", name) for name in record.keys("input_change")}
    known = {name: row[1] for name, row in rows.items() if row is not None and np.isfinite(row[1][:2]).all()}
    if not known:
        return remedy("prior-augmentation", measured="Accuracy under changes: not measured.", code=CODE["noise"])
    worst = max(known, key=lambda name: known[name][1] - known[name][0])
    told = ", ".join(_from_to(CHANGED[name], row) for name, row in known.items())
    return remedy("prior-augmentation", measured=f"Of this network {told}.", code=CODE[worst])


def _from_to(change: str, row: np.ndarray) -> str:
    if np.isfinite(row[3]):
        return f"{change} takes the accuracy from {row[3]:.3f} to {row[4]:.3f}"
    return f"{change} takes the loss from {row[0]:.3g} to {row[1]:.3g}"


def _pretrained(record: RunRecord, samples: int) -> Remedy:
    row = record.latest("linear_probe", "inputs")
    told = "Whether its own features are of use: not measured."
    if row is not None and np.isfinite(row[1][:2]).all():
        linear, net, error = row[1]
        better = "no better than" if net > linear - 2 * np.nan_to_num(error) else "better than"
        told = f"Those of this network are {better} the bare inputs: a linear model of them comes to {linear:.3g}, "
        told += f"the network to {net:.3g}."
    return remedy("pretrained", samples=samples, measured=told)


def _features(record: RunRecord, curve: LearningCurve) -> Remedy:
    rises = record.memo(importances)
    if rises is None:
        return remedy("prior-features", measured="What each feature is worth to the network: not measured.")
    first = np.argsort(-rises)[:SHOWN]
    listed = ", ".join(f"{i} (loss + {rises[i]:.3g})" for i in first)
    idle = int((rises < LITTLE * curve.span).sum())
    return remedy(
        "prior-features",
        measured=f"This network needs features {listed} most; {idle} of {len(rises)} could be shuffled for next to "
        "nothing.",
    )


def _loss(record: RunRecord) -> Remedy:
    share = record.memo(worst_tenth)
    told = "not measured" if share is None else f"{share:.0%}"
    functions = [loss.get("function") for loss in record.facts.get("loss", {}).values()]
    return remedy(
        "prior-loss",
        measured=f"Of the validation loss, the worst tenth of the samples makes up {told}.",
        function=next((f for f in functions if f), "cross_entropy"),
    )


def _bayesian(record: RunRecord, samples: int) -> Remedy:
    decay = float(record.facts.get("regularisation", {}).get("weight_decay") or 0.0)
    row = record.latest("weight_spread", "end")
    spread = float(row[1]) if row is not None and np.isfinite(row[1]) and row[1] > 0 else 0.1
    weights = f"the weights have {spread:.3g}" if row is not None else "that of the weights: not measured"
    implied = f"the decay of {decay:g} implies {(samples * decay) ** -0.5:.3g}" if decay else "there is no decay"
    return remedy(
        "bayesian-prior",
        already_in_use=decay > 0,
        measured=f"Here {implied}, and {weights}.",
        samples=samples,
        spread=f"{spread:.3g}",
        decay=1 / (samples * spread**2),
    )
