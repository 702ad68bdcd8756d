"""DeepDiagnosis' callback, at its default thresholds.

Evaluated: numerical errors, data not normalised, output out of range, poor weights, vanishing gradient, learning rate,
loss and accuracy that do not change.

Not evaluated: dead nodes and saturated activations, which read hidden outputs. The tool stops a training at its first
alarm; here all are listed, in the tool's order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.rivals.inputs import first_inputs, first_outputs, first_targets
from benchmarks.rivals.rival import (
    NOT_LEARNING,
    Alarm,
    Rival,
    accuracy,
    gradients,
    mean_absolute,
    relative_updates,
    training_loss,
)
from trainwatch.record import RunRecord

SMALLEST_CHANGE = 1e-7
VARIANCES = 1e-5, 10.0
UPDATES = 1e-5, 0.1
STILL_LOSS, STILL_ACCURACY = 5, 20
SPREAD = 10.0


def numerical(record: RunRecord) -> Iterator[Alarm]:
    """A loss or gradient that is not finite, or a loss of exactly zero."""
    losses, (norms, _) = training_loss(record), gradients(record)
    if np.isinf(losses).any() or (losses == 0).any() or np.isinf(norms).any():
        yield Alarm("numerical error", frozenset({"TW303", "TW302", "TW601", "TW107", "TW703", "TW704"}))


def unnormalised(record: RunRecord) -> Iterator[Alarm]:
    """Inputs outside -1 to 1."""
    seen = first_inputs(record)
    if seen is not None and (seen.low < -1 or seen.high > 1):
        yield Alarm("data not normalised", frozenset({"TW107"}))


def out_of_range(record: RunRecord) -> Iterator[Alarm]:
    """The spread of the outputs is ten times that of the labels, or the other way round."""
    outputs, targets = first_outputs(record), first_targets(record)
    if outputs is None or targets is None:
        return
    ratio = (outputs.high - outputs.low) / max(targets.high - targets.low, 1e-12)
    if not 1 / SPREAD <= ratio <= SPREAD:
        yield Alarm("output out of range", frozenset({"TW703", "TW108"}))


def poor_weights(record: RunRecord) -> Iterator[Alarm]:
    """Variance of the weights outside 1e-5 to 10 at the start."""
    for p in record.facts.get("parameters", ()):
        variance = float(p["norm"]) ** 2 / max(p["numel"], 1)
        if p["kind"] in ("weight", "recurrent") and not VARIANCES[0] <= variance <= VARIANCES[1]:
            yield Alarm("poor weight initialisation", frozenset({"TW309"}))
            return


def vanishing(record: RunRecord) -> Iterator[Alarm]:
    """Mean absolute gradient below 1e-7."""
    norms, facts = gradients(record)
    if len(norms) and (mean_absolute(norms, facts) < SMALLEST_CHANGE).any():
        yield Alarm("vanishing gradient", frozenset({"TW301", "TW309", "TW705"}))


def learning_rate(record: RunRecord) -> Iterator[Alarm]:
    """Rate times gradient over weight outside 1e-5 to 0.1, in the median layer of some step."""
    ratios = relative_updates(record)
    if not len(ratios):
        return
    middle = np.nanmedian(ratios, axis=1)
    if (middle > UPDATES[1]).any():
        yield Alarm("learning rate too high", frozenset({"TW601", "TW603", "TW604", "TW302"}))
    if (middle < UPDATES[0]).any():
        yield Alarm("learning rate too low", frozenset({"TW602", "TW301"}))


def unchanged(record: RunRecord) -> Iterator[Alarm]:
    """Loss the same over five checks, or accuracy over twenty."""
    losses, right = training_loss(record), accuracy(record)
    still = _still(losses, STILL_LOSS) or _still(right, STILL_ACCURACY)
    if still:
        yield Alarm("loss or accuracy does not change", NOT_LEARNING)


def _still(values: np.ndarray, checks: int) -> bool:
    same = np.abs(np.diff(values)) < 1e-8
    return len(same) >= checks and bool((np.convolve(same, np.ones(checks), "valid") == checks).any())


RIVAL = Rival(
    "DeepDiagnosis",
    "Wardat et al., DeepDiagnosis (ICSE 2022); DeepDiagnosis/ICSE2022 at 500b017, callback/callbacks.py",
    (numerical, unnormalised, poor_weights, vanishing, out_of_range, learning_rate, unchanged),
)
