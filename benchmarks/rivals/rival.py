"""What a reference rule set is, and what all of them read from a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.rivals.inputs import Seen, first_inputs, first_outputs, first_targets
from trainwatch.record import RunRecord
from trainwatch.record.series import Array

NOT_LEARNING = frozenset(
    {
        *("TW107", "TW108", "TW204", "TW208", "TW301", "TW309", "TW401", "TW402"),
        *("TW601", "TW602", "TW703", "TW704", "TW705", "TW706"),
    }
)
"""Causes of a loss that does not fall: an alarm which says only that may mean any of them."""


@dataclass(frozen=True)
class Alarm:
    """An alarm of a rule.

    Attributes:
        rule: Name of the rule in its tool.
        codes: Diagnoses that the alarm may be read as.
    """

    rule: str
    codes: frozenset[str]


@dataclass(frozen=True)
class Thresholds:
    """What a rule set compares with; a rival's own has a field a threshold, with the published value.

    Attributes:
        off: Names of rules that are switched off.
    """

    off: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rival:
    """A set of published rules.

    Attributes:
        name: Of the tool.
        source: Where the thresholds were published.
        rules: Each yields an alarm where it fires. The first alarm counts as the first-ranked diagnosis.
        published: The thresholds as published.
        tried: Rule -> its thresholds -> the values that tuning tries beside the published ones.
    """

    name: str
    source: str
    rules: tuple[Callable[[Measured, Any], Iterator[Alarm]], ...]
    published: Thresholds
    tried: Mapping[str, Mapping[str, Sequence[Any]]]

    def judge(self, record: RunRecord | Measured, thresholds: Any = None) -> list[Alarm]:
        """Alarms on a record, in the order of the rules; by the published thresholds unless others are given."""
        known = measure(record) if isinstance(record, RunRecord) else record
        chosen = thresholds or self.published
        with np.errstate(all="ignore"):  # losses that are not finite
            return [a for rule in self.rules if rule.__name__ not in chosen.off for a in rule(known, chosen)]


@dataclass(frozen=True)
class Measured:
    """What the rules read from a record.

    Attributes:
        losses: Training loss by step, shape (n,).
        validation: Steps and losses of the primary validation stream, shape (2, passes).
        accuracy: Validation accuracy by pass; empty for a task without classes.
        norms: Gradient norms of the weights in order of execution, shape (steps, weights).
        mean_absolute: Mean absolute entries of those gradients.
        updates: Rate times gradient norm over weight norm at the start.
        variances: Of the weights at the start.
        inputs, outputs, targets: Of the first batch; None where they are not floating.
        counts: Training samples of each class so far; empty without classes.
        confusions: Confusion matrix of each stream's last validation.
        losses_used: Function and number of classes of each loss.
    """

    losses: Array
    validation: Array
    accuracy: Array
    norms: Array
    mean_absolute: Array
    updates: Array
    variances: Array
    inputs: Seen | None
    outputs: Seen | None
    targets: Seen | None
    counts: Array
    confusions: tuple[Array, ...]
    losses_used: tuple[tuple[str, int | None], ...]


def measure(record: RunRecord) -> Measured:
    """Read a record once, for all rule sets and all thresholds."""
    with np.errstate(all="ignore"):
        norms, facts = gradients(record)
        counts = record.series("train_classes", "targets")
        tables = (record.series("val_confusion", key) for key in record.keys("val_confusion"))
        weights = [p for p in record.facts.get("parameters", ()) if p["kind"] in ("weight", "recurrent")]
        return Measured(
            losses=training_curve(record)[1],
            validation=np.stack(validation_curve(record)),
            accuracy=accuracy(record),
            norms=norms,
            mean_absolute=mean_absolute(norms, facts) if len(norms) else norms,
            updates=relative_updates(record),
            variances=np.array([float(p["norm"]) ** 2 / max(p["numel"], 1) for p in weights]),
            inputs=first_inputs(record),
            outputs=first_outputs(record),
            targets=first_targets(record),
            counts=counts.history()[1].astype(float).sum(0)[:-1] if counts is not None and len(counts) else np.zeros(0),
            confusions=tuple(t.history()[1][-1].astype(float) for t in tables if t is not None and len(t)),
            losses_used=tuple(
                (str(k.get("function")), k.get("classes")) for k in record.facts.get("loss", {}).values()
            ),
        )


def training_curve(record: RunRecord) -> tuple[Array, Array]:
    """Steps and training losses; empty where none was recorded."""
    keys = sorted(record.keys("train_loss"), key=lambda key: key == "root")
    series = record.series("train_loss", keys[0]) if keys else None
    if series is None:
        return np.zeros(0), np.zeros(0)
    steps, losses = series.history()
    return steps, losses.astype(float)


def validation_curve(record: RunRecord) -> tuple[Array, Array]:
    """Steps and losses of the primary validation stream; empty where there is none."""
    facts = record.facts.get("validation", {})
    key = next((k for k, known in facts.items() if known.get("primary")), None)
    series = record.series("val_loss", key) if key is not None else None
    if series is None:
        return np.zeros(0), np.zeros(0)
    steps, losses = series.history()
    return steps, losses.astype(float)


def accuracy(record: RunRecord) -> Array:
    """Validation accuracy by pass; empty for a task without classes."""
    facts = record.facts.get("validation", {})
    key = next((k for k, known in facts.items() if known.get("primary")), None)
    right = record.series("val_sample_correct", key) if key is not None else None
    sizes = record.series("val_group_size", key) if key is not None else None
    if right is None or sizes is None:
        return np.zeros(0)
    values, weights = right.history()[1].astype(float), sizes.history()[1][-1].astype(float)
    if values.shape[1] != len(weights):
        return np.nanmean(values, axis=1)
    return np.nansum(values * weights, axis=1) / max(weights.sum(), 1)


def gradients(record: RunRecord) -> tuple[Array, list[dict[str, object]]]:
    """Gradient norms of the weights in order of execution, shape (steps, weights), and their facts."""
    blocks, facts = [], []
    known = record.facts.get("parameters", [])
    for key, optimizer in record.facts.get("optimizers", {}).items():
        series = record.series("grad_norm", key)
        if series is None or not len(series):
            continue
        columns = [i for i, p in enumerate(optimizer["parameters"]) if known[p]["kind"] in ("weight", "recurrent")]
        columns.sort(key=lambda i, o=optimizer: known[o["parameters"][i]]["order"])
        blocks.append(series.history()[1].astype(float)[:, columns])
        facts += [known[optimizer["parameters"][i]] for i in columns]
    if not blocks:
        return np.zeros((0, 0)), []
    rows = min(len(b) for b in blocks)
    return np.concatenate([b[:rows] for b in blocks], axis=1), facts


def mean_absolute(norms: Array, facts: list[dict[str, object]]) -> Array:
    """Mean absolute entry of each gradient, taken as that of a normal distribution of the same norm."""
    size = np.sqrt([float(str(p["numel"])) for p in facts])
    return norms / size * np.sqrt(2 / np.pi)


def relative_updates(record: RunRecord) -> Array:
    """Rate times gradient norm over the norm of the weight at the start, shape (steps, weights)."""
    norms, facts = gradients(record)
    optimizers = record.facts.get("optimizers", {})
    rate = next((g.get("lr") for o in optimizers.values() for g in o["groups"]), None)
    weights = np.array([float(str(p["norm"])) for p in facts])
    if rate is None or not len(norms):
        return np.zeros((0, 0))
    return rate * norms / np.maximum(weights, 1e-12)
