"""DeepDiagnosis' callback, at its default thresholds.

Evaluated: numerical errors, data not normalised, output out of range, poor weights, vanishing gradient, learning rate,
loss and accuracy that do not change.

Not evaluated: dead nodes and saturated activations, which read hidden outputs. The tool stops a training at its first
alarm; here all are listed, in the tool's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.rivals.rival import NOT_LEARNING, Alarm, Measured, Rival, Thresholds


@dataclass(frozen=True)
class DeepDiagnosis(Thresholds):
    """Constants of the callback."""

    smallest_change: float = 1e-7
    smallest_variance: float = 1e-5
    largest_variance: float = 10.0
    smallest_update: float = 1e-5
    largest_update: float = 0.1
    still_loss: int = 5
    still_accuracy: int = 20
    spread: float = 10.0
    largest_input: float = 1.0


def numerical(run: Measured, _: DeepDiagnosis) -> Iterator[Alarm]:
    """A loss or gradient that is not finite, or a loss of exactly zero."""
    if np.isinf(run.losses).any() or (run.losses == 0).any() or np.isinf(run.norms).any():
        yield Alarm("numerical error", frozenset({"TW303", "TW302", "TW601", "TW107", "TW703", "TW704"}))


def unnormalised(run: Measured, t: DeepDiagnosis) -> Iterator[Alarm]:
    """Inputs outside -1 to 1."""
    seen = run.inputs
    if seen is not None and (seen.low < -t.largest_input or seen.high > t.largest_input):
        yield Alarm("data not normalised", frozenset({"TW107"}))


def out_of_range(run: Measured, t: DeepDiagnosis) -> Iterator[Alarm]:
    """The spread of the outputs is ten times that of the labels, or the other way round."""
    outputs, targets = run.outputs, run.targets
    if outputs is None or targets is None:
        return
    ratio = (outputs.high - outputs.low) / max(targets.high - targets.low, 1e-12)
    if not 1 / t.spread <= ratio <= t.spread:
        yield Alarm("output out of range", frozenset({"TW703", "TW108"}))


def poor_weights(run: Measured, t: DeepDiagnosis) -> Iterator[Alarm]:
    """Variance of the weights outside 1e-5 to 10 at the start."""
    if not ((run.variances >= t.smallest_variance) & (run.variances <= t.largest_variance)).all():
        yield Alarm("poor weight initialisation", frozenset({"TW309"}))


def vanishing(run: Measured, t: DeepDiagnosis) -> Iterator[Alarm]:
    """Mean absolute gradient below 1e-7."""
    if (run.mean_absolute < t.smallest_change).any():
        yield Alarm("vanishing gradient", frozenset({"TW301", "TW309", "TW705"}))


def learning_rate(run: Measured, t: DeepDiagnosis) -> Iterator[Alarm]:
    """Rate times gradient over weight outside 1e-5 to 0.1, in the median layer of some step."""
    if not len(run.updates):
        return
    middle = np.nanmedian(run.updates, axis=1)
    if (middle > t.largest_update).any():
        yield Alarm("learning rate too high", frozenset({"TW601", "TW603", "TW604", "TW302"}))
    if (middle < t.smallest_update).any():
        yield Alarm("learning rate too low", frozenset({"TW602", "TW301"}))


def unchanged(run: Measured, t: DeepDiagnosis) -> Iterator[Alarm]:
    """Loss the same over five checks, or accuracy over twenty."""
    if _still(run.losses, t.still_loss) or _still(run.accuracy, t.still_accuracy):
        yield Alarm("loss or accuracy does not change", NOT_LEARNING)


def _still(values: np.ndarray, checks: int) -> bool:
    same = np.abs(np.diff(values)) < 1e-8
    return len(same) >= checks and bool((np.convolve(same, np.ones(checks), "valid") == checks).any())


RIVAL = Rival(
    "DeepDiagnosis",
    "Wardat et al., DeepDiagnosis (ICSE 2022); DeepDiagnosis/ICSE2022 at 500b017, callback/callbacks.py",
    (numerical, unnormalised, poor_weights, vanishing, out_of_range, learning_rate, unchanged),
    DeepDiagnosis(),
    {
        "unnormalised": {"largest_input": (3.0, 5.0, 10.0, 30.0, 100.0)},
        "poor_weights": {"smallest_variance": (0.0, 1e-8, 1e-7, 1e-6), "largest_variance": (1.0, 3.0, 100.0)},
        "vanishing": {"smallest_change": (1e-12, 1e-10, 1e-9, 1e-8, 1e-6)},
        "out_of_range": {"spread": (30.0, 100.0, 300.0, 1000.0)},
        "learning_rate": {"smallest_update": (0.0, 1e-8, 1e-7, 1e-6), "largest_update": (0.3, 1.0, 3.0, 10.0)},
        "unchanged": {"still_loss": (3, 10, 20), "still_accuracy": (5, 10)},
    },
)
