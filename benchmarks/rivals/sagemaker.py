"""The built-in rules of Amazon SageMaker Debugger for deep learning, at their default parameters.

Evaluated: VanishingGradient, ExplodingTensor, PoorWeightInitialization (its loss and gradient conditions),
WeightUpdateRatio, LossNotDecreasing, Overfit, Overtraining, ClassImbalance, CheckInputImages.

Not evaluated, for want of their input: DeadRelu and SaturatedActivation (activations), AllZero, UnchangedTensor,
TensorVariance, SimilarAcrossRuns (tensors that the user must choose), StalledTrainingRule (clock), NLPSequenceRatio,
and the rules for XGBoost.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.rivals.inputs import first_inputs
from benchmarks.rivals.rival import (
    NOT_LEARNING,
    Alarm,
    Rival,
    gradients,
    mean_absolute,
    relative_updates,
    training_loss,
    validation_curve,
)
from trainwatch.record import RunRecord

SMALLEST_GRADIENT = 1e-7
WINDOW, DECREASE = 10, 0.001
OVERFIT_RATIO = 0.1
PATIENCE_TRAIN, PATIENCE_VALIDATION, DELTA = 5, 10, 0.01
IMBALANCE, MISPREDICTION, SAMPLES = 10.0, 0.7, 500
LARGEST_UPDATE, SMALLEST_UPDATE = 10.0, 1e-8
SPREAD, PATIENCE_START = 0.001, 5
INPUT_MEAN = 0.2


def exploding_tensor(record: RunRecord) -> Iterator[Alarm]:
    """Any value that is not finite."""
    norms, _ = gradients(record)
    if np.isinf(norms).any() or np.isinf(training_loss(record)).any():
        yield Alarm("ExplodingTensor", frozenset({"TW302", "TW303", "TW601", "TW107", "TW704"}))


def vanishing_gradient(record: RunRecord) -> Iterator[Alarm]:
    """Mean absolute gradient below 1e-7."""
    norms, facts = gradients(record)
    if len(norms) and (mean_absolute(norms, facts) < SMALLEST_GRADIENT).any():
        yield Alarm("VanishingGradient", frozenset({"TW301", "TW309", "TW705"}))


def poor_weight_initialization(record: RunRecord) -> Iterator[Alarm]:
    """In the first steps: gradients all alike (within 0.001), and a loss that does not fall for five steps."""
    norms, facts = gradients(record)
    losses = training_loss(record)[: 2 * PATIENCE_START]
    if not len(norms) or len(losses) < 2 * PATIENCE_START:
        return
    narrow = (2 * 1.645 * mean_absolute(norms[: 2 * PATIENCE_START], facts) < SPREAD).all(axis=1).all()
    if narrow and losses[PATIENCE_START:].min() >= losses[:PATIENCE_START].min():
        yield Alarm("PoorWeightInitialization", frozenset({"TW309", "TW301"}))


def weight_update_ratio(record: RunRecord) -> Iterator[Alarm]:
    """Update over weight above 10 or below 1e-8."""
    ratios = relative_updates(record)
    if (ratios > LARGEST_UPDATE).any():
        yield Alarm("WeightUpdateRatio", frozenset({"TW601", "TW302"}))
    if len(ratios) and (ratios < SMALLEST_UPDATE).any():
        yield Alarm("WeightUpdateRatio", frozenset({"TW602", "TW301", "TW705"}))


def loss_not_decreasing(record: RunRecord) -> Iterator[Alarm]:
    """The loss of some window of ten steps is not 0.1 % below that of the window before."""
    losses = training_loss(record)
    whole = losses[: len(losses) // WINDOW * WINDOW].reshape(-1, WINDOW).mean(1)
    if len(whole) > 1 and (whole[1:] > whole[:-1] * (1 - DECREASE)).any():
        yield Alarm("LossNotDecreasing", NOT_LEARNING | {"TW205", "TW603", "TW604"})


def overfit(record: RunRecord) -> Iterator[Alarm]:
    """Validation loss more than 10 % above the training loss, once."""
    steps, validation = validation_curve(record)
    losses = training_loss(record)
    for at, value in zip(steps, validation, strict=True):
        before = losses[max(0, int(at) - WINDOW) : int(at)]
        if len(before) and value - before.mean() > OVERFIT_RATIO * abs(before.mean()):
            yield Alarm("Overfit", frozenset({"TW201", "TW202", "TW203"}))
            return


def overtraining(record: RunRecord) -> Iterator[Alarm]:
    """Training loss without progress for 5 looks and validation loss for 10, of at least 0.01."""
    steps, validation = validation_curve(record)
    losses = training_loss(record)
    before = [losses[max(0, int(s) - WINDOW) : int(s)] for s in steps]
    training = np.array([part.mean() for part in before if len(part)])
    if _stalled(training, PATIENCE_TRAIN) and _stalled(validation, PATIENCE_VALIDATION):
        yield Alarm("Overtraining", frozenset({"TW201", "TW203", "TW202"}))


def class_imbalance(record: RunRecord) -> Iterator[Alarm]:
    """Largest over smallest class above 10, or a class mostly predicted wrongly, after 500 samples."""
    series = record.series("train_classes", "targets")
    if series is not None and len(series):
        counts = series.history()[1].astype(float).sum(0)[:-1]
        if counts.sum() >= SAMPLES and counts.max() > IMBALANCE * max(counts[counts > 0].min(), 1):
            yield Alarm("ClassImbalance", frozenset({"TW101", "TW102"}))
            return
    for key in record.keys("val_confusion"):
        table = record.series("val_confusion", key)
        if table is None or not len(table):
            continue
        last = table.history()[1][-1].astype(float)
        totals = last.sum(1)
        wrong = 1 - np.diag(last)[totals > 0] / totals[totals > 0]
        if totals.sum() >= SAMPLES and (wrong > MISPREDICTION).any():
            yield Alarm("ClassImbalance", frozenset({"TW101", "TW102"}))
            return


def check_input_images(record: RunRecord) -> Iterator[Alarm]:
    """Mean of the inputs above 0.2."""
    seen = first_inputs(record)
    if seen is not None and abs(seen.mean) > INPUT_MEAN:
        yield Alarm("CheckInputImages", frozenset({"TW107"}))


def _stalled(curve: np.ndarray, patience: int) -> bool:
    """The best value is that many looks old."""
    if len(curve) <= patience:
        return False
    best = np.minimum.accumulate(curve)
    return bool((best[patience:] > best[:-patience] - DELTA).any())


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
)
