"""AUTOTRAINER's monitor, at the default parameters of its demo.

Evaluated: vanish, explode, unstable, slow convergence, not converge, improper loss, and the gap between training and
test (which the tool computes but does not report). Accuracy is that of validation: the record has none of training.
Judged after 30 % of the passes, every third one, as the tool does.

Not evaluated: dying ReLU, improper data and improper activation, which read the entries of gradients and hidden
outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.rivals.rival import NOT_LEARNING, Alarm, Measured, Rival, Thresholds


@dataclass(frozen=True)
class AutoTrainer(Thresholds):
    """Parameters of the demo; Greek letters are the paper's."""

    beta1: float = 1e-3
    beta2: float = 1e-4
    beta3: float = 70.0
    largest_loss: float = 1e3
    zeta: float = 0.03
    eta: float = 0.2
    delta: float = 0.01
    theta: float = 0.7
    after: float = 0.3
    every: int = 3


def _looks(run: Measured, t: AutoTrainer) -> np.ndarray:
    """Gradients at every third pass, after the first 30 %, shape (looks, weights)."""
    steps, rows = run.validation[0], len(run.norms)
    at = steps[t.every - 1 :: t.every].astype(int) - 1 if len(steps) else np.arange(9, rows, 10)
    return run.norms[at[(at >= t.after * rows) & (at < rows) & (at >= 0)]]


def explode(run: Measured, t: AutoTrainer) -> Iterator[Alarm]:
    """First over last gradient above 70, a value that is not finite, or a loss above 1,000."""
    rows = _looks(run, t)
    large = rows.shape[1] > 1 and (rows[:, 0] / rows[:, -1] > t.beta3).any()
    if large or np.isinf(run.norms).any() or (run.losses >= t.largest_loss).any():
        yield Alarm("explode", frozenset({"TW302", "TW303", "TW601", "TW107", "TW108", "TW309", "TW704"}))


def vanish(run: Measured, t: AutoTrainer) -> Iterator[Alarm]:
    """First over last gradient below 1e-3 and the first below 1e-4, in a net that has not converged."""
    rows = _looks(run, t)
    if not len(rows) or rows.shape[1] < 2 or (len(run.accuracy) and run.accuracy.max() >= t.theta):
        return
    if ((rows[:, 0] / rows[:, -1] < t.beta1) & (rows[:, 0] < t.beta2)).any():
        yield Alarm("vanish", frozenset({"TW301", "TW309"}))


def improper_loss(run: Measured, _: AutoTrainer) -> Iterator[Alarm]:
    """A loss over classes on a single output, or a binary one on several."""
    for name, classes in run.losses_used:
        if (name == "cross_entropy" and classes == 1) or ("binary" in name and (classes or 1) > 2):
            yield Alarm("improper loss", frozenset({"TW703"}))
            return


def unstable(run: Measured, t: AutoTrainer) -> Iterator[Alarm]:
    """Accuracy swings by 0.03 between neighbouring extremes in a fifth of the passes."""
    right = run.accuracy
    if len(right) < 3:
        return
    extremes = right[np.flatnonzero(np.diff(np.sign(np.diff(right)))) + 1]
    if len(extremes) > 1 and (np.abs(np.diff(extremes)) >= t.zeta).sum() >= t.eta * len(right):
        yield Alarm("unstable", frozenset({"TW601", "TW603", "TW604", "TW704"}))


def not_converge(run: Measured, t: AutoTrainer) -> Iterator[Alarm]:
    """No pass reaches an accuracy of 0.7."""
    right = run.accuracy
    if len(right) and right[int(t.after * len(right)) :].max() < t.theta:
        yield Alarm("not_converge", NOT_LEARNING | {"TW205", "TW102", "TW101"})


def slow_convergence(run: Measured, t: AutoTrainer) -> Iterator[Alarm]:
    """No pass gains 0.01 of accuracy over the one before."""
    if len(run.accuracy) > 2 and np.diff(run.accuracy).max() < t.delta:
        yield Alarm("slow", frozenset({"TW602", "TW204", "TW205", "TW301"}))


RIVAL = Rival(
    "AUTOTRAINER",
    "Zhang et al., AUTOTRAINER (ICSE 2021); shiningrain/AUTOTRAINER at 03a463e, utils/monitor.py",
    (improper_loss, explode, vanish, unstable, slow_convergence, not_converge),
    AutoTrainer(),
    {
        "explode": {"beta3": (3.0, 10.0, 300.0, 3000.0), "largest_loss": (1e2, 1e4, 1e6)},
        "vanish": {"beta1": (1e-4, 1e-2, 1e-1), "beta2": (1e-6, 1e-5, 1e-3, 1e-2)},
        "unstable": {"zeta": (0.01, 0.05, 0.1, 0.2), "eta": (0.1, 0.4)},
        "slow_convergence": {"delta": (0.0001, 0.001, 0.003, 0.03)},
        "not_converge": {"theta": (0.3, 0.5, 0.6, 0.8, 0.9)},
    },
)
