"""The rules on fit and classes, on real trainings of a few seconds."""

import contextlib

import numpy as np
import pytest
import torch
from manual_capture import train
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch import nn

from trainwatch.diagnosis import Severity
from trainwatch.rules import NotChecked
from trainwatch.rules.tw101_class_imbalance import ClassImbalance
from trainwatch.rules.tw102_majority_collapse import MajorityCollapse
from trainwatch.rules.tw201_overfitting import Overfitting
from trainwatch.rules.tw202_overconfidence import Overconfidence
from trainwatch.rules.tw701_train_mode_in_validation import TrainModeInValidation
from trainwatch.rules.tw709_not_judgeable import NotJudgeable

RULES = (ClassImbalance, MajorityCollapse, Overfitting, Overconfidence, TrainModeInValidation, NotJudgeable)


def data(name, seed=0):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = x / 16 if name == "digits" else (x - x.mean(0)) / x.std(0)
    if name == "diabetes":
        y = ((y - y.mean()) / y.std()).astype(np.float32)[:, None]
    x, xv, y, yv = train_test_split(
        x.astype(np.float32), y, test_size=0.25, random_state=seed, stratify=None if y.ndim == 2 else y
    )
    return (x, y), (xv, yv)


def mlp(inputs, hidden, outputs, *, seed=0, middle=()):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), *middle, nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


def found(record):
    """Severity of each rule that speaks, by code."""
    said = {}
    for rule in RULES:
        if all(map(record.has, rule.needs)):
            with contextlib.suppress(NotChecked):
                said.update({d.code: d.severity for d in rule().check(record)})
    return said


@pytest.mark.parametrize("seed", range(5))
def test_healthy_digits(seed):
    assert found(train(mlp(64, 64, 10, seed=seed), *data("digits", seed), epochs=20, seed=seed)) == {}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "outputs", "epochs"), [("diabetes", 1, 12), ("breast_cancer", 2, 20)])
def test_healthy_tables(name, outputs, epochs, seed):
    sets = data(name, seed)
    assert found(train(mlp(sets[0][0].shape[1], 32, outputs, seed=seed), *sets, epochs=epochs, seed=seed)) == {}


@pytest.mark.parametrize("seed", range(3))
def test_a_large_network_on_few_samples_with_wrong_labels_overfits(seed):
    (x, y), validation = data("digits")
    rng = np.random.default_rng(seed)
    x, y = x[:150], y[:150].copy()
    wrong = rng.random(150) < 0.4
    y[wrong] = rng.integers(0, 10, wrong.sum())
    record = train(mlp(64, 256, 10, seed=seed), (x, y), validation, epochs=60, lr=3e-3, weight_decay=0.0, seed=seed)
    assert found(record) == {"TW201": Severity.WARNING}


def test_a_regression_trained_for_long_overfits():
    record = train(mlp(10, 128, 1), *data("diabetes"), epochs=120, lr=3e-3, weight_decay=0.0)
    assert found(record) == {"TW201": Severity.WARNING}


@pytest.mark.parametrize(("kept", "severity"), [(8, Severity.WARNING), (70, None)])
def test_imbalanced_digits(kept, severity):
    (x, y), validation = data("digits")
    keep = np.ones(len(y), bool)
    for rare in (8, 9):
        keep[np.flatnonzero(y == rare)[kept:]] = False
    said = found(train(mlp(64, 64, 10), (x[keep], y[keep]), validation, epochs=15))
    assert said.get("TW101") == severity
    assert "TW102" not in said


def test_a_rare_digit_is_never_named():
    (x, y), (xv, yv) = data("digits")
    rare = y == 8
    keep = ~rare | (np.cumsum(rare) <= 20)
    record = train(mlp(64, 64, 2), (x[keep], rare[keep].astype(int)), (xv, (yv == 8).astype(int)), epochs=4, lr=1e-4)
    assert found(record) == {"TW101": Severity.WARNING, "TW102": Severity.WARNING}


@pytest.mark.parametrize(
    ("middle", "severity"),
    [((), None), ((nn.Dropout(0.3),), Severity.WARNING), ((nn.BatchNorm1d(64),), Severity.ERROR)],
    ids=["no-such-module", "dropout", "batch-norm"],
)
def test_model_left_in_training_mode(middle, severity):
    model = mlp(64, 64, 10, middle=middle)
    record = train(model, *data("digits"), epochs=3, eval_mode=False)
    assert found(record).get("TW701") == severity
