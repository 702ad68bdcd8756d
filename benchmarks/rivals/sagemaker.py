"""The built-in rules of Amazon SageMaker Debugger for deep learning, at their default parameters.

Evaluated: VanishingGradient, ExplodingTensor, PoorWeightInitialization (its loss and gradient conditions),
WeightUpdateRatio, LossNotDecreasing, Overfit, Overtraining, ClassImbalance, CheckInputImages.

Not evaluated, for want of their input: DeadRelu and SaturatedActivation (activations), AllZero, UnchangedTensor,
TensorVariance, SimilarAcrossRuns (tensors that the user must choose), StalledTrainingRule (clock), NLPSequenceRatio,
and the rules for XGBoost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.rivals.rival import NOT_LEARNING, Alarm, Measured, Rival, Thresholds


@dataclass(frozen=True)
class SageMaker(Thresholds):
    """Default parameters; the names are the documentation's, where one name serves several rules with the rule's."""

    vanishing_threshold: float = 1e-7
    num_steps: int = 10
    diff_percent: float = 0.1
    ratio_threshold: float = 0.1
    overfit_patience: int = 1
    patience_train: int = 5
    patience_validation: int = 10
    delta: float = 0.01
    threshold_imbalance: float = 10.0
    threshold_misprediction: float = 0.7
    samples: int = 500
    large_threshold: float = 10.0
    small_threshold: float = 1e-8
    distribution_range: float = 0.001
    initialization_patience: int = 5
    threshold_mean: float = 0.2


def exploding_tensor(run: Measured, _: SageMaker) -> Iterator[Alarm]:
    """Any value that is not finite."""
    if np.isinf(run.norms).any() or np.isinf(run.losses).any():
        yield Alarm("ExplodingTensor", frozenset({"TW302", "TW303", "TW601", "TW107", "TW704"}))


def vanishing_gradient(run: Measured, t: SageMaker) -> Iterator[Alarm]:
    """Mean absolute gradient below 1e-7."""
    if (run.mean_absolute < t.vanishing_threshold).any():
        yield Alarm("VanishingGradient", frozenset({"TW301", "TW309", "TW705"}))


def poor_weight_initialization(run: Measured, t: SageMaker) -> Iterator[Alarm]:
    """In the first steps: gradients all alike (within 0.001), and a loss that does not fall for five steps."""
    looked = 2 * t.initialization_patience
    losses = run.losses[:looked]
    if not len(run.norms) or len(losses) < looked:
        return
    narrow = (2 * 1.645 * run.mean_absolute[:looked] < t.distribution_range).all(axis=1).all()
    if narrow and losses[t.initialization_patience :].min() >= losses[: t.initialization_patience].min():
        yield Alarm("PoorWeightInitialization", frozenset({"TW309", "TW301"}))


def weight_update_ratio(run: Measured, t: SageMaker) -> Iterator[Alarm]:
    """Update over weight above 10 or below 1e-8."""
    if (run.updates > t.large_threshold).any():
        yield Alarm("WeightUpdateRatio", frozenset({"TW601", "TW302"}))
    if (run.updates < t.small_threshold).any():
        yield Alarm("WeightUpdateRatio", frozenset({"TW602", "TW301", "TW705"}))


def loss_not_decreasing(run: Measured, t: SageMaker) -> Iterator[Alarm]:
    """The loss of some window of ten steps is not 0.1 % below that of the window before."""
    whole = run.losses[: len(run.losses) // t.num_steps * t.num_steps].reshape(-1, t.num_steps).mean(1)
    if len(whole) > 1 and (whole[1:] > whole[:-1] * (1 - t.diff_percent / 100)).any():
        yield Alarm("LossNotDecreasing", NOT_LEARNING | {"TW205", "TW603", "TW604"})


def overfit(run: Measured, t: SageMaker) -> Iterator[Alarm]:
    """Validation loss more than 10 % above the training loss, once."""
    running = 0
    for at, value in run.validation.T:
        before = run.losses[max(0, int(at) - t.num_steps) : int(at)]
        above = len(before) and value - before.mean() > t.ratio_threshold * abs(before.mean())
        running = running + 1 if above else 0
        if running >= t.overfit_patience:
            yield Alarm("Overfit", frozenset({"TW201", "TW202", "TW203"}))
            return


def overtraining(run: Measured, t: SageMaker) -> Iterator[Alarm]:
    """Training loss without progress for 5 looks and validation loss for 10, of at least 0.01."""
    steps, validation = run.validation
    before = [run.losses[max(0, int(s) - t.num_steps) : int(s)] for s in steps]
    training = np.array([part.mean() for part in before if len(part)])
    if _stalled(training, t.patience_train, t.delta) and _stalled(validation, t.patience_validation, t.delta):
        yield Alarm("Overtraining", frozenset({"TW201", "TW203", "TW202"}))


def class_imbalance(run: Measured, t: SageMaker) -> Iterator[Alarm]:
    """Largest over smallest class above 10, or a class mostly predicted wrongly, after 500 samples."""
    counts = run.counts
    uneven = counts.sum() >= t.samples and counts.max() > t.threshold_imbalance * max(counts[counts > 0].min(), 1)
    if uneven or any(_mispredicted(table, t) for table in run.confusions):
        yield Alarm("ClassImbalance", frozenset({"TW101", "TW102"}))


def check_input_images(run: Measured, t: SageMaker) -> Iterator[Alarm]:
    """Mean of the inputs above 0.2."""
    if run.inputs is not None and abs(run.inputs.mean) > t.threshold_mean:
        yield Alarm("CheckInputImages", frozenset({"TW107"}))


def _mispredicted(table: np.ndarray, t: SageMaker) -> bool:
    totals = table.sum(1)
    wrong = 1 - np.diag(table)[totals > 0] / totals[totals > 0]
    return bool(totals.sum() >= t.samples and (wrong > t.threshold_misprediction).any())


def _stalled(curve: np.ndarray, patience: int, delta: float) -> bool:
    """The best value is that many looks old."""
    if len(curve) <= patience:
        return False
    best = np.minimum.accumulate(curve)
    return bool((best[patience:] > best[:-patience] - delta).any())


RIVAL = Rival(
    "SageMaker Debugger",
    "Amazon SageMaker developer guide, debugger-built-in-rules.md (2023-03-17); package smdebug_rulesconfig 1.0.1",
    (
        exploding_tensor,
        check_input_images,
        class_imbalance,
        poor_weight_initialization,
        vanishing_gradient,
        weight_update_ratio,
        overtraining,
        overfit,
        loss_not_decreasing,
    ),
    SageMaker(),
    {
        "check_input_images": {"threshold_mean": (0.5, 1.0, 2.0, 5.0, 20.0)},
        "class_imbalance": {
            "threshold_imbalance": (3.0, 5.0, 20.0, 50.0),
            "threshold_misprediction": (0.5, 0.9, 0.99, 2.0),
        },
        "poor_weight_initialization": {"distribution_range": (1e-7, 1e-6, 1e-5, 1e-4)},
        "vanishing_gradient": {"vanishing_threshold": (1e-12, 1e-10, 1e-9, 1e-8, 1e-6)},
        "weight_update_ratio": {
            "large_threshold": (0.3, 1.0, 3.0, 100.0),
            "small_threshold": (0.0, 1e-12, 1e-10, 1e-6),
        },
        "overtraining": {
            "patience_train": (2, 10),
            "patience_validation": (5, 15, 20),
            "delta": (0.001, 0.0001),
        },
        "overfit": {"ratio_threshold": (0.3, 1.0, 3.0, 10.0), "overfit_patience": (3, 5, 10)},
        "loss_not_decreasing": {"num_steps": (30, 100, 300), "diff_percent": (0.0, -10.0, -50.0, -100.0)},
    },
)
