"""Gradients free of size: RMS per parameter tensor, over depth in execution order and over the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from trainwatch.record import RunRecord
from trainwatch.record.series import Array

FIRST = 32  # rows kept at the start of a run
ROWS = 256  # rows kept altogether
BLOCKS = 8  # parts of the run that the signal is measured in
SAMPLES = 5  # rows looked at in each
LAYERS = 24  # most layers that a slope is fitted to
FEWEST = 3  # layers without which there is no depth
MAD_TO_SD = 1.4826  # of a normal distribution
NORMALISING = ("BatchNorm", "InstanceNorm", "LayerNorm", "GroupNorm", "RMSNorm", "SyncBatchNorm")
SQUASHING = ("Sigmoid", "Tanh", "LogSigmoid", "Softsign", "Hardsigmoid", "Hardtanh")
EPSILON = 1e-6  # at most, of an adaptive optimiser, to divide by no zero; what is larger is there to shorten steps
SGD = ("SGD",)
ADAPTIVE = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Lion")  # steps of about lr a weight


@dataclass(frozen=True)
class Gradients:
    """Gradient norms of the parameters of one optimiser, thinned in time.

    Attributes:
        optimizer: Facts of the optimiser.
        key: Its name.
        parameters: Facts of each column's parameter.
        steps: Optimiser steps of the rows: the first ones all, the rest at equal distances.
        norms: L2 norms, shape (n, P); NaN where there was no gradient, infinity where it was not finite.
        total: Norm of all gradients together, shape (n,).
        untouched: The first row was measured before any update, and is no mean over several steps.
        limits: Norm of all gradients, and size of an entry, at which the run clips; infinity where it does not.
    """

    optimizer: dict[str, Any]
    key: str
    parameters: tuple[dict[str, Any], ...]
    steps: Array = field(repr=False)
    norms: Array = field(repr=False)
    total: Array = field(repr=False)
    untouched: bool
    limits: tuple[float, float] = (math.inf, math.inf)

    @property
    def clipped(self) -> Array:
        """`norms` as they are after clipping, which is what steps are made of, shape (n, P).

        Where entries are clipped, the most that it can leave of a tensor's norm: every entry at the limit.
        """
        norm, entry = self.limits
        cut = self.norms.copy()
        if math.isfinite(entry):
            most = entry * np.sqrt([p["numel"] for p in self.parameters])
            cut = np.where(np.isfinite(cut), np.minimum(cut, most), cut)
        if math.isfinite(norm):
            left = norm / np.fmax(np.sqrt(np.nansum(cut**2, 1)), norm)
            cut = np.multiply(cut, left[:, None], where=np.isfinite(cut), out=cut)
        return cut

    def typical_before(self, step: int) -> float | None:
        """Nine in ten finite norms before a step were below this; None where there was none."""
        before = self.total[(self.steps < step) & np.isfinite(self.total) & (self.total > 0)]
        return float(np.quantile(before, 0.9)) if len(before) else None


@dataclass(frozen=True)
class Signal:
    """The gradient on its way back through the layers, as RMS per tensor, from the first step on.

    Attributes:
        kind: ``bias`` or ``weight``: the tensors that it was read from.
        parameters: Their facts, the first layer first.
        steps: First step of each block; the first block is the first row alone.
        log_rms: Decimal logarithm of the RMS gradient, shape (blocks, layers); NaN where zero, absent or not finite.
        decades: Rise from the last layer to the first along the fitted line, per block: negative where the gradient
            shrinks on its way back; NaN where fewer than three layers have one.
        steady: Share of neighbouring layers between which it goes the way of the line, per block.
        error: Standard error of `decades`, from the scatter about the line at the first step.
        untouched: The first row was measured before any update.
    """

    kind: str
    parameters: tuple[dict[str, Any], ...]
    steps: Array
    log_rms: Array = field(repr=False)
    decades: Array
    steady: Array
    error: float
    untouched: bool

    @property
    def layers(self) -> int:
        return len(self.parameters)

    @property
    def factor(self) -> float:
        """Factor by which one layer changes the gradient at the first step."""
        return float(10 ** (self.decades[0] / (self.layers - 1)))


@dataclass(frozen=True)
class Growth:
    """The first finite gradient norm far above all that came before it."""

    step: int
    factor: float


def gradients_of(record: RunRecord) -> Gradients | None:
    """The gradients of a run with one optimiser; None where there are several, or none was recorded."""
    keys = record.keys("grad_norm")
    optimizer = record.facts.get("optimizers", {}).get(keys[0] if keys else "", {})
    if len(keys) != 1 or not optimizer.get("parameters"):
        return None
    series = record.series("grad_norm", keys[0])
    if series is None or not len(series):
        return None
    old, recent = series.windows, series.values
    steps = np.concatenate([old["first"], series.steps])
    even = np.searchsorted(steps, np.linspace(steps[0], steps[-1], ROWS))  # in time: the folded past has fewer rows
    rows = np.unique(np.append(np.arange(min(FIRST, len(steps))), even))
    late = int(np.searchsorted(rows, len(old["mean"])))  # the table is not copied as a whole: it may be large
    some = np.concatenate([old["mean"][rows[:late]], recent[rows[late:] - len(old["mean"])]]).astype(float)
    untouched = bool(steps[0] == 0 and (not late or old["last"][0] == 0))
    total = np.sqrt((np.where(np.isnan(some), 0.0, some) ** 2).sum(1))
    known = record.facts["parameters"]
    return Gradients(
        optimizer, keys[0], tuple(known[i] for i in optimizer["parameters"]), steps[rows], some, total, untouched,
        clipping_limits(record),
    )  # fmt: skip


def clipping_limits(record: RunRecord) -> tuple[float, float]:
    """Norm of all gradients, and size of an entry, at which a run clips; infinity where it does not."""
    clipping = record.facts.get("regularisation", {}).get("clipping") or {}
    norm, entry = (float(clipping.get(name) or math.inf) for name in ("max_norm", "max_value"))
    return norm if norm > 0 else math.inf, entry if entry > 0 else math.inf


def backward_signal(record: RunRecord) -> Signal | None:
    """How the gradient changes on its way from the last layer to the first; None where that cannot be told.

    Read from biases where most layers have one: their gradient is the signal itself, while a weight's is the signal
    times the layer's input, and those two may cancel over depth. Biases that a normalisation layer follows are left
    out: it cancels them, and what gradient they have is rounding. Read from weights, the first layer is left out
    where there are others enough: its gradient has the scale of the data.
    """
    gradients = record.memo(gradients_of)
    if gradients is None:
        return None
    cancelled = before_normalisation(record.facts.get("modules", []))
    alive = np.asarray((gradients.norms > 0).any(0))
    columns: dict[str, list[int]] = {"bias": [], "weight": []}
    for i, p in sorted(enumerate(gradients.parameters), key=lambda item: (item[1]["order"] or 0, item[0])):
        kind = "weight" if p["kind"] == "recurrent" else p["kind"]
        ranked = p["order"] is not None and p["order"] >= 0
        if kind in columns and alive[i] and ranked and (kind == "weight" or p["module"] not in cancelled):
            columns[kind].append(i)
    weights = columns["weight"][1 if len(columns["weight"]) > FEWEST else 0 :]
    for kind, chosen in (("bias", columns["bias"]), ("weight", weights)):
        if len(chosen) >= max(FEWEST, len(weights) / 2 if kind == "bias" else 0):
            thinned = np.linspace(0, len(chosen) - 1, min(LAYERS, len(chosen))).astype(int)
            return _signal(kind, gradients, [chosen[i] for i in thinned])
    return None


def growth_of(gradients: Gradients, factor: float, counts: Array | None = None) -> Growth | None:
    """When the total norm first reached `factor` times the median of all earlier rows; None if it never did.

    Args:
        gradients: Of the run.
        factor: Times the median.
        counts: Whether each row is looked at, shape (n,); all are by default.
    """
    finite = np.isfinite(gradients.total) & (gradients.total > 0)
    steps, total = gradients.steps[finite], gradients.total[finite]
    if len(total) < 2 or total.max() < factor * total.min():
        return None
    candidates = total[1:] >= factor * np.minimum.accumulate(total)[:-1]
    if counts is not None:
        candidates &= counts[finite][1:]
    for i in np.flatnonzero(candidates) + 1:
        before = float(np.median(total[:i]))
        if total[i] >= factor * before:
            return Growth(int(steps[i]), float(total[i] / before))
    return None


def largest_update(record: RunRecord, first: int, last: int) -> tuple[int, float] | None:
    """The longest update between two steps, clipped and with momentum, over the length of the weights at the start.

    Returns:
        Its step and the ratio; None where the optimiser's step is not known from its gradient and learning rate.
    """
    gradients = record.memo(gradients_of)
    if gradients is None:
        return None
    a, b = np.searchsorted(gradients.steps, [first, last + 1])
    a = min(int(a), len(gradients.steps) - 1)
    lengths = update_lengths(record, slice(a, max(int(b), a + 1)))
    if lengths is None:
        return None
    at = int(lengths.argmax())
    return int(gradients.steps[a + at]), float(lengths[at])


def update_lengths(record: RunRecord, rows: slice = slice(None), *, clipped: bool = True) -> Array | None:
    """The update of each of some rows of `gradients_of`, as `largest_update` measures it, or without clipping."""
    gradients = record.memo(gradients_of)
    if gradients is None or gradients.optimizer["type"] not in SGD + ADAPTIVE:
        return None
    steps, norms = gradients.steps[rows], (gradients.clipped if clipped else gradients.norms)[rows]
    column = {p: i for i, p in enumerate(gradients.optimizer["parameters"])}
    moved, length = np.zeros(len(steps)), 0.0
    for g, group in enumerate(gradients.optimizer["groups"]):
        facts = {p: record.facts["parameters"][p] for p in group["parameters"] if p in column}
        facts = {p: f for p, f in facts.items() if f["kind"] in ("weight", "recurrent") and f["norm"]}
        length += sum(f["norm"] ** 2 for f in facts.values())
        rates = step_sizes(gradients.optimizer["type"], learning_rates(record, steps, g), steps)
        some, numels = norms[:, [column[p] for p in facts]], np.array([f["numel"] for f in facts.values()])
        moved += squared_updates(gradients.optimizer["type"], group, rates, some, numels)
    return np.sqrt(moved / length) if length else None


def long_steps(record: RunRecord, length: float) -> Array | None:
    """Whether a step along each row's gradient, as it is before clipping, is that long over the weights, shape (n,).

    None where it does not follow from the gradient, as with adaptive optimisers.
    """
    gradients = record.memo(gradients_of)
    if gradients is None or gradients.optimizer["type"] not in SGD:
        return None
    lengths = update_lengths(record, clipped=False)
    return None if lengths is None else lengths >= length


def weight_layers(record: RunRecord) -> int:
    """How many weights of layers the net has."""
    return sum(p["kind"] in ("weight", "recurrent") for p in record.facts.get("parameters", ()))


def weight_gain(record: RunRecord) -> float | None:
    """Root mean square of the weights at the start, times the root of the fan-in: the median over layers."""
    gains = [
        p["norm"] / np.sqrt(p["shape"][0])  # = norm / sqrt(numel) * sqrt(fan-in)
        for p in record.facts.get("parameters", [])
        if p["kind"] in ("weight", "recurrent") and len(p["shape"]) > 1 and p["norm"]
    ]
    return float(np.median(gains)) if gains else None


def fan_in(weight: dict[str, Any]) -> int:
    """Inputs of each unit of a weight; `weight` are the facts of the parameter."""
    return math.prod(weight["shape"][1:])


def gain_of(weight: dict[str, Any]) -> float:
    """Standard deviation of a weight at the start, times the root of its fan-in."""
    return float(weight["std"] * math.sqrt(fan_in(weight)))


def learning_rate(record: RunRecord, step: int, group: int = 0) -> float:
    """The learning rate that a group of the first optimiser had at a step."""
    return float(learning_rates(record, np.array([step]), group)[0])


def learning_rates(record: RunRecord, steps: Array, group: int = 0) -> Array:
    """The learning rates that a group of the first optimiser had at some steps."""
    key = next(iter(record.keys("grad_norm")), "")
    series = record.series("lr", f"{key}/{group}")
    if series is None or not len(series):
        return np.full(len(steps), float(record.facts["optimizers"][key]["groups"][group]["lr"]))
    changed, values = series.history()
    return np.asarray(values[np.maximum(np.searchsorted(changed, steps, "right") - 1, 0)], float)


def damping(group: Mapping[str, Any]) -> float:
    """What the step of plain SGD is divided by in the long run: 1 - momentum, at least a hundredth."""
    return max(1 - (group.get("momentum") or 0.0), 0.01)


def kept_beside_epsilon(group: Mapping[str, Any], norms: Array, numels: Array) -> Array:
    """Share of its rate by which an adaptive step moves a weight: g / (g + epsilon) where its gradient is usually g.

    Args:
        group: Facts of the parameter group. An epsilon of up to `EPSILON` is there to divide by no zero, and takes
            nothing away.
        norms: Gradient norms, shape (n, P), finite.
        numels: Entries of each parameter, shape (P,).

    Returns:
        Shape (n, P).
    """
    epsilon, usual = float(group.get("eps") or 0.0), norms / np.sqrt(numels)
    return np.asarray(usual / (usual + epsilon)) if epsilon > EPSILON else np.ones_like(usual)


def squared_updates(optimizer: str, group: Mapping[str, Any], rates: Array, norms: Array, numels: Array) -> Array:
    """Squared length of the updates of some parameters together, in the long run, shape (n,).

    An adaptive optimiser moves a weight by about its rate, SGD by rate times gradient.

    Args:
        optimizer: Its type, among `SGD` and `ADAPTIVE`.
        group: Facts of the parameter group.
        rates: From `step_sizes`, shape (n,).
        norms: Gradient norms, clipped, shape (n, P).
        numels: Entries of each parameter, shape (P,).
    """
    norms = np.where(np.isfinite(norms), norms, 0.0)
    each = kept_beside_epsilon(group, norms, numels) * np.sqrt(numels) if optimizer in ADAPTIVE else norms
    return np.asarray((rates / damping(group)) ** 2 * (each**2).sum(1))


def step_sizes(optimizer: str, rates: Array, steps: Array) -> Array:
    """Rates that an optimiser of a type comes down to: Adagrad divides by the root of the sum, not mean, of squares."""
    return np.asarray(rates / np.sqrt(steps + 1.0)) if optimizer == "Adagrad" else rates


def _signal(kind: str, gradients: Gradients, columns: list[int]) -> Signal:
    parameters = tuple(gradients.parameters[i] for i in columns)
    rms = gradients.norms[:, columns] / np.sqrt([p["numel"] for p in parameters])
    n, layers = rms.shape
    cuts = np.unique(np.append(0, np.linspace(min(1, n), n, BLOCKS + 1).astype(int)))  # the first row is a block alone
    picks = np.linspace(cuts[:-1], cuts[1:] - 1, SAMPLES).astype(int)
    some = rms[picks]  # samples x blocks x layers
    log_rms = np.log10(_medians(np.where(np.isfinite(some) & (some > 0), some, np.nan)))
    first, second = np.triu_indices(layers, 1)
    slope = _medians(((log_rms[:, second] - log_rms[:, first]) / (second - first)).T)  # Theil and Sen's
    slope[np.isfinite(log_rms).sum(1) < FEWEST] = np.nan
    pace = np.diff(log_rms, axis=1)
    steady = (pace * np.sign(slope)[:, None] > 0).sum(1) / np.maximum(np.isfinite(pace).sum(1), 1)
    about = log_rms[0] - slope[0] * np.arange(layers)
    scatter = MAD_TO_SD * float(_medians(np.abs(about - _medians(about[:, None]))[:, None])[0])
    error = scatter * float(np.sqrt(12 * (layers - 1) / (layers * (layers + 1))))  # of (layers - 1) x a fitted slope
    return Signal(
        kind=kind,
        parameters=parameters,
        steps=gradients.steps[cuts[:-1]],
        log_rms=log_rms,
        decades=-slope * (layers - 1),
        steady=steady,
        error=max(error, 0.05),  # the line is never known better than that
        untouched=gradients.untouched,
    )


def _medians(rows: Array) -> Array:
    """Medians over the first axis, NaN left out; NaN where there are no numbers. Far faster than `numpy.nanmedian`."""
    ordered = np.sort(rows, axis=0)  # NaN last
    count = (~np.isnan(ordered)).sum(0, keepdims=True)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(rows) - 1)
    return np.asarray((np.take_along_axis(ordered, low, 0) + np.take_along_axis(ordered, high, 0))[0] / 2)


def before_normalisation(modules: list[dict[str, Any]]) -> set[str]:
    """Names of the modules that a normalisation layer follows."""
    names = sorted(modules, key=lambda m: m["order"])
    return {a["name"] for a, b in pairwise(names) if b["type"].startswith(NORMALISING)}
