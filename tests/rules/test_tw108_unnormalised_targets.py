import numpy as np
import pytest
import torch
from scaled import table, train
from torch import nn

from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw108_unnormalised_targets import UnnormalisedTargets

ADAM = {"head": 1, "optimizer": torch.optim.Adam, "lr": 0.003, "epochs": 15}


def codes(report):
    return [d.code for d in report.diagnoses if d.code == "TW108"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("criterion", [nn.MSELoss, nn.L1Loss])
def test_fires_first_on_raw_targets(criterion, seed):
    report, _ = train(table("diabetes", seed, targets="raw"), criterion(), seed=seed, **ADAM)
    found = report.diagnoses[0]
    assert found.code == "TW108"
    assert found.evidence[0].value == pytest.approx(170, rel=0.1)
    assert "targets = (targets - 1" in found.remedies[0].how


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("criterion", [nn.MSELoss, nn.L1Loss])
def test_stays_silent_on_prepared_targets(criterion, seed):
    assert not codes(train(table("diabetes", seed), criterion(), seed=seed, **ADAM)[0])


def test_stays_silent_where_the_rate_makes_up_for_it():
    options = {**ADAM, "lr": 0.1, "epochs": 60}
    assert not codes(train(table("diabetes", 0, targets="raw"), nn.MSELoss(), **options)[0])


def run(*, mean=150.0, sd=77.0, late=0.5, function="mse_loss", reduction="mean", steps=300, finished=True, factor=1.0):
    """A run whose loss is that of predicting the mean after a share of `late`."""
    record = RunRecord()
    level = (sd**2 if function == "mse_loss" else sd * np.sqrt(2 / np.pi)) * factor
    losses = np.where(np.arange(steps) < late * steps, 5 * level, 0.5 * level)
    losses = losses * (1 + 0.01 * np.random.default_rng(0).standard_normal(steps))
    record.append("train_loss", function, np.arange(steps), losses)
    record.append("target_stats", function, 0, np.array([0, 300, mean, sd, 20, 280, 0.0]) * factor)
    record.set_fact("loss", {function: {"function": function, "reduction": reduction}})
    record.set_fact("run", {"steps": steps, "finished": finished})
    return record


def verdict(record, **thresholds):
    return list(UnnormalisedTargets(**thresholds).check(record))


@pytest.mark.parametrize(
    ("fires", "silent"),
    [
        ({"mean": 11.0, "sd": 1.0}, {"mean": 9.0, "sd": 1.0}),
        ({"mean": 0.0, "sd": 0.01}, {"mean": 0.0, "sd": 0.03}),
        ({"late": 0.3}, {"late": 0.1}),
        ({"function": "l1_loss"}, {"function": "l1_loss", "late": 0.1}),
        ({"late": 2.0}, {"late": 0.0}),
        ({"steps": 20}, {"steps": 19}),
        ({"steps": 200, "finished": False}, {"steps": 199, "finished": False}),
    ],
)
def test_each_condition_is_needed(fires, silent):
    assert len(verdict(run(**fires))) == 1
    assert verdict(run(**silent)) == []


@pytest.mark.parametrize("options", [{"function": "poisson_nll_loss"}, {"reduction": "sum"}])
def test_abstains_where_the_cost_of_the_mean_is_not_known(options):
    with pytest.raises(NotChecked):
        verdict(run(**options))


def test_abstains_without_a_loss():
    with pytest.raises(NotChecked):
        verdict(RunRecord())
