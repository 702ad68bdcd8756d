"""The reference rules fire at their published thresholds, and not short of them."""

import numpy as np
import pytest

from benchmarks.rivals import RIVALS
from trainwatch.record import RunRecord


def run(losses=None, *, norms=None, validation=None, right=None, counts=None, lr=0.01, numel=100, **facts):
    """A record of two weight layers with these columns; what is not told is not recorded."""
    record = RunRecord()
    layers = [
        {"name": f"{i}.weight", "kind": "weight", "order": i, "numel": numel, "norm": 1.0, "shape": [10, 10]}
        for i in range(2)
    ]
    record.set_fact("parameters", layers)
    record.set_fact("optimizers", {"default": {"type": "SGD", "parameters": [0, 1], "groups": [{"lr": lr}]}})
    record.set_fact("validation", {"val": {"primary": True, "kind": "val"}})
    if losses is not None:
        record.append("train_loss", "cross_entropy", np.arange(len(losses)), np.asarray(losses, float))
    if norms is not None:
        record.append("grad_norm", "default", np.arange(len(norms)), np.asarray(norms, np.float32))
    for i, value in enumerate(validation if validation is not None else ()):
        record.append("val_loss", "val", 10 * (i + 1), float(value))
    if right is not None:
        record.append("val_group_size", "val", 0, np.ones(4))
        for i, share in enumerate(right):
            record.append("val_sample_correct", "val", 10 * (i + 1), np.full(4, float(share)))
    if counts is not None:
        record.append("train_classes", "targets", 0, np.asarray([*counts, 0], np.float32))
    for topic, value in facts.items():
        record.set_fact(topic, value)
    return record


def alarms(name, record):
    return [alarm.rule for alarm in RIVALS[name].judge(record)]


FALLING = 2.0 * 0.97 ** np.arange(100)
SMALL = 1e-7 * 10 / np.sqrt(2 / np.pi)  # norm of 100 entries of mean size 1e-7


@pytest.mark.parametrize(
    ("name", "rule", "fires", "silent"),
    [
        ("SageMaker Debugger", "ExplodingTensor", {"losses": [1, np.inf]}, {"losses": [1, 1e9]}),
        ("SageMaker Debugger", "VanishingGradient", {"norms": [[1, SMALL * 0.9]]}, {"norms": [[1, SMALL * 1.1]]}),
        ("SageMaker Debugger", "LossNotDecreasing", {"losses": np.ones(20)}, {"losses": FALLING}),
        (
            "SageMaker Debugger",
            "Overfit",
            {"losses": np.ones(20), "validation": [1.11]},
            {"losses": np.ones(20), "validation": [1.09]},
        ),
        (
            "SageMaker Debugger",
            "Overtraining",
            {"losses": np.ones(200), "validation": np.ones(20)},
            {"losses": np.linspace(9, 1, 200), "validation": np.ones(20)},
        ),
        ("SageMaker Debugger", "ClassImbalance", {"counts": [600, 59]}, {"counts": [600, 61]}),
        ("SageMaker Debugger", "WeightUpdateRatio", {"norms": [[1001, 1]]}, {"norms": [[999, 1]]}),
        (
            "SageMaker Debugger",
            "PoorWeightInitialization",
            {"losses": np.ones(20), "norms": np.full((20, 2), 1e-3)},
            {"losses": FALLING, "norms": np.full((20, 2), 1e-3)},
        ),
        ("AUTOTRAINER", "explode", {"losses": [1, 1000]}, {"losses": [1, 999]}),
        ("AUTOTRAINER", "explode", {"norms": np.tile([71, 1], (40, 1))}, {"norms": np.tile([69, 1], (40, 1))}),
        (
            "AUTOTRAINER",
            "vanish",
            {"norms": np.tile([9e-5, 1], (40, 1)), "right": [0.1]},
            {"norms": np.tile([9e-5, 1], (40, 1)), "right": [0.8]},
        ),
        ("AUTOTRAINER", "unstable", {"right": [0.5, 0.6] * 5}, {"right": [0.5, 0.52] * 5}),
        ("AUTOTRAINER", "not_converge", {"right": [0.5, 0.6, 0.69]}, {"right": [0.5, 0.6, 0.71]}),
        ("AUTOTRAINER", "slow", {"right": [0.5, 0.509, 0.518]}, {"right": [0.5, 0.511, 0.52]}),
        (
            "AUTOTRAINER",
            "improper loss",
            {"loss": {"cross_entropy": {"function": "cross_entropy", "classes": 1}}},
            {"loss": {"cross_entropy": {"function": "cross_entropy", "classes": 2}}},
        ),
        ("DeepDiagnosis", "numerical error", {"losses": [1, 0]}, {"losses": [1, 1e-9]}),
        ("DeepDiagnosis", "learning rate too high", {"norms": [[11, 11]]}, {"norms": [[9, 9]]}),
        ("DeepDiagnosis", "learning rate too low", {"norms": [[9e-4, 9e-4]]}, {"norms": [[2e-3, 2e-3]]}),
        ("DeepDiagnosis", "vanishing gradient", {"norms": [[1, SMALL * 0.9]]}, {"norms": [[1, SMALL * 1.1]]}),
        ("DeepDiagnosis", "loss or accuracy does not change", {"losses": np.ones(6)}, {"losses": FALLING}),
        ("DeepDiagnosis", "poor weight initialisation", {"numel": 10**6}, {"numel": 100}),
    ],
)
def test_a_rule_fires_at_its_threshold(name, rule, fires, silent):
    assert rule in alarms(name, run(**fires))
    assert rule not in alarms(name, run(**silent))


@pytest.mark.parametrize("name", RIVALS)
def test_an_empty_record_alarms_nobody(name):
    assert RIVALS[name].judge(RunRecord()) == []


@pytest.mark.parametrize("name", RIVALS)
def test_alarms_name_codes_of_the_catalogue(name):
    record = run(np.r_[np.ones(40), np.inf], norms=np.full((41, 2), np.inf), validation=[2.0] * 20, counts=[900, 2])
    found = RIVALS[name].judge(record)
    assert found
    assert all(code.startswith("TW") for alarm in found for code in alarm.codes)
