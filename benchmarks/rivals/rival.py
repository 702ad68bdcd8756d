"""What a reference rule set is, and what all of them read from a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array

NOT_LEARNING = frozenset(
    {"TW107", "TW108", "TW204", "TW208", "TW301", "TW309", "TW601", "TW602", "TW703", "TW704", "TW705", "TW706"}
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
class Rival:
    """A set of published rules.

    Attributes:
        name: Of the tool.
        source: Where the thresholds were published.
        rules: Each yields an alarm where it fires. The first alarm counts as the first-ranked diagnosis.
    """

    name: str
    source: str
    rules: tuple[Callable[[RunRecord], Iterator[Alarm]], ...]

    def judge(self, record: RunRecord) -> list[Alarm]:
        """Alarms on a record, in the order of the rules."""
        with np.errstate(all="ignore"):  # losses that are not finite
            return [alarm for rule in self.rules for alarm in rule(record)]


def training_loss(record: RunRecord) -> Array:
    """The training loss step by step, shape (n,); empty where none was recorded."""
    keys = sorted(record.keys("train_loss"), key=lambda key: key == "root")
    series = record.series("train_loss", keys[0]) if keys else None
    return np.zeros(0) if series is None else series.history()[1].astype(float)


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
