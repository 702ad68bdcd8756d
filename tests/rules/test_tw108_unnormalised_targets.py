import numpy as np
import pytest
import torch
from begun_copies import tried
from scaled import table, train
from synthetic_gradients import parameter
from torch import nn

from audited import asked, part
from trainwatch.auditing.measures import features
from trainwatch.diagnosis import Severity
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
    options = {**ADAM, "lr": 0.03, "epochs": 60}
    assert not codes(train(table("diabetes", 0, targets="raw"), nn.MSELoss(), **options)[0])


def test_fires_where_the_steps_that_make_up_for_it_are_as_long_as_the_weights_and_no_copy_shows_that_they_do():
    options = {**ADAM, "lr": 0.1, "epochs": 60}
    data = table("diabetes", 0, targets="raw")
    assert not codes(train(data, nn.MSELoss(), **options)[0]), "one on standardised targets comes no further"
    report, _ = train(data, nn.MSELoss(), **options, probes="off")
    (found,) = [d for d in report.diagnoses if d.code == "TW108"]
    assert "an update is on average 0.58 times the weights' length" in found.summary
    assert found.evidence[1].value == pytest.approx(0.58, abs=0.01)
    assert found.evidence[1].threshold == 0.3


@pytest.mark.parametrize("seed", range(3))
def test_stays_silent_where_a_falling_rate_carries_a_linear_model_all_the_way(seed):
    """Its steps are long beside weights that begin near 0, and it ends as good as on standardised targets."""
    data = table("diabetes", seed, targets="raw")
    falling = {"hidden": 0, "lr": 0.02, "epochs": 20, "falls": True}
    report, record = train(data, nn.MSELoss(), seed=seed, head=1, **falling)
    assert record.has("standard_targets")
    assert not codes(report)


def run(*, mean=150.0, sd=77.0, late=0.5, function="mse_loss", reduction="mean", steps=300, finished=True, factor=1.0,
        update=None, layers=2, after=0.5, lucky=()):  # fmt: skip
    """A run whose loss is that of predicting the mean after a share of `late`, and then `after` of it.

    Args:
        update: Length of each update over that of the weights, by a rate of Adam; None where it is not known.
        lucky: Steps at which the loss is low.
    """
    record = RunRecord()
    level = (sd**2 if function == "mse_loss" else sd * np.sqrt(2 / np.pi)) * factor
    losses = np.where(np.arange(steps) < late * steps, 5 * level, after * level)
    losses[list(lucky)] = 0.1 * level
    losses = losses * (1 + 0.01 * np.random.default_rng(0).standard_normal(steps))
    record.append("train_loss", function, np.arange(steps), losses)
    record.append("target_stats", function, 0, np.array([0, 300, mean, sd, 20, 280, 0.0]) * factor)
    record.set_fact("loss", {function: {"function": function, "reduction": reduction}})
    record.set_fact("run", {"steps": steps, "finished": finished})
    if update is not None:
        weights = [parameter(f"{i}.weight", norm=32.0) for i in range(layers)]  # a deviation of 1
        group = {"lr": update, "momentum": 0.0, "parameters": list(range(layers))}
        record.set_fact("parameters", weights)
        facts = {"type": "Adam", "parameters": group["parameters"], "groups": [group]}
        record.set_fact("optimizers", {"default": facts})
        record.append("grad_norm", "default", np.arange(steps), np.ones((steps, layers)))
    return record


def verdict(record, **thresholds):
    return list(UnnormalisedTargets(**thresholds).check(record))


@pytest.mark.parametrize(
    ("fires", "silent"),
    [
        ({"mean": 11.0, "sd": 1.0}, {"mean": 9.0, "sd": 1.0}),
        ({"mean": 0.0, "sd": 0.01}, {"mean": 0.0, "sd": 0.03}),
        ({"mean": 0.0, "sd": 0.018}, {"mean": 0.0, "sd": 0.022}),
        ({"late": 0.3, "lucky": [3, 9]}, {"late": 0.15}),
        ({"function": "l1_loss"}, {"function": "l1_loss", "late": 0.1}),
        ({"late": 2.0}, {"late": 0.0}),
        ({"late": 0.0, "update": 0.31}, {"late": 0.0, "update": 0.29}),
        ({"late": 0.0, "update": 1.0}, {"late": 0.0}),
        ({"late": 0.0, "update": 1.0}, {"late": 0.0, "update": 1.0, "layers": 1}),
        ({"late": 0.0, "update": 1.0, "after": 0.3}, {"late": 0.0, "update": 1.0, "after": 0.2}),
        ({"late": 0.0, "update": 1.0}, {"late": 0.0, "update": 1.0, "mean": 9.0, "sd": 1.0}),
        ({"late": 0.5, "mean": 0.0, "sd": 0.01}, {"late": 0.0, "update": 1.0, "mean": 0.0, "sd": 0.01}),
        ({"steps": 20}, {"steps": 19}),
        ({"steps": 200, "finished": False}, {"steps": 199, "finished": False}),
    ],
)
def test_each_condition_is_needed(fires, silent):
    (found,) = verdict(run(**fires))
    assert 0 <= found.margin < 1e3
    assert verdict(run(**silent)) == []


@pytest.mark.parametrize("options", [{"function": "poisson_nll_loss"}, {"reduction": "sum"}])
def test_abstains_where_the_cost_of_the_mean_is_not_known(options):
    with pytest.raises(NotChecked):
        verdict(run(**options))


def test_abstains_where_the_targets_of_that_loss_were_not_seen():
    unseen = run()
    del unseen._series["target_stats"]
    with pytest.raises(NotChecked):
        verdict(unseen)


def test_abstains_without_a_loss():
    with pytest.raises(NotChecked):
        verdict(RunRecord())


def test_long_steps_are_told_with_their_numbers():
    (found,) = verdict(run(late=0.0, update=0.5))
    assert found.summary.startswith("targets of 150 +- 77: an update is on average 0.5 times the weights' length, and")
    shown = found.evidence[1]
    assert (shown.name, shown.value, shown.threshold) == ("mean update over weights", pytest.approx(0.5), 0.3)
    assert found.margin > 10
    (late,) = verdict(run(update=0.5))  # that it was late is said first
    assert "until 50% of the run was over" in late.summary
    assert [verdict(run(late=0.0, update=0.5), **{k: v}) for k, v in (("stretch", 0.6), ("learned", 0.4))] == [[], []]


def on_data(y, yv=None):
    x = np.random.default_rng(0).standard_normal((len(y), 2))
    some = [part("train", x, y), *([part("val", x[: len(yv)], yv)] if yv is not None else [])]
    return [d for d in asked(some, features, task="regression")[1].diagnoses if d.code == "TW108"]


def test_on_data_alone_the_scale_of_targets_is_a_remark_and_another_one_in_validation_a_warning():
    y = np.random.default_rng(0).normal(0, 1, 400)
    assert on_data(y) == on_data(y[100:], y[:100]) == on_data(y[100:], 2 * y[:100]) == []
    assert [d.severity for d in on_data(150 + 70 * y)] == [Severity.INFO]
    assert [d.severity for d in on_data(0.01 * y)] == [Severity.INFO]
    assert [d.severity for d in on_data(100 * y[100:], 200 * y[:100])] == [Severity.INFO]
    assert [d.severity for d in on_data(y[100:], 5 * y[:100])] == [Severity.WARNING]
    assert [d.margin for d in on_data(150 + 70 * y)] == [0.0]
    assert [d.margin for d in on_data(y[100:], 5 * y[:100])] == [np.inf]


@pytest.mark.parametrize("seed", range(20))
def test_on_data_alone_a_heavy_tail_is_no_other_scale(seed):
    y = np.random.default_rng(seed).lognormal(0, 2, 140)
    assert Severity.WARNING not in {d.severity for d in on_data(y[40:], y[:40])}


def test_on_data_alone_it_abstains_without_numbers_to_predict():
    with pytest.raises(NotChecked, match="finite"):
        list(UnnormalisedTargets().check(asked([part("train", np.eye(3), np.full(3, np.nan))], features)[0]))


def ahead(made=None, **errors):
    """Copies of a run whose targets are out of the ordinary, and not so far that this alone would tell."""
    losses = {"before": 0.6, "usual": 0.55, "other": 0.2, "training": 0.2, **errors}
    return tried(made or run(mean=4.0, sd=3.0, late=0.0), "standard_targets", **losses)


def test_a_copy_on_standardised_targets_that_leads_is_told():
    (found,) = verdict(ahead())
    assert found.margin > 10
    assert "targets of 4 +- 3: a copy with standardised targets came to a mean squared error over the" in found.summary
    shown = found.evidence[1]
    assert (shown.name, shown.value) == ("lead of the copy with standardised targets", pytest.approx(0.35))
    assert shown.threshold == 0.05
    assert found.remedies[0].id == "normalise-targets"
    assert verdict(ahead(), better=0.4) == verdict(ahead(), unusual=6.0) == []


@pytest.mark.parametrize("how", [{"other": 0.51}, {"other": 0.58, "usual": 1.3}, {"error": 0.3}, {"training": 0.57}])
def test_one_that_does_not_lead_is_not(how):
    assert verdict(ahead(**how)) == []


@pytest.mark.parametrize("how", [{"late": 0.5}, {"late": 0.0, "update": 1.0}])
def test_a_scale_that_copies_show_to_do_no_harm_is_no_fault(how):
    for error, before, usual, fires in (
        (0.014, 0.5, 0.5, 0),
        (0.016, 0.5, 0.5, 1),
        (0.005, 0.515, 0.5, 0),  # what the other copy came to as well
        (0.005, 0.525, 0.5, 1),
        (0.005, 0.5, 0.515, 0),
        (0.005, 0.5, 0.525, 1),  # without, a copy needs longer
    ):
        made = ahead(run(**how), before=before, usual=usual, other=0.5, error=error)
        assert len(verdict(made)) == fires, (error, before, usual)
    assert len(verdict(ahead(run(**how), before=0.5, usual=0.5, other=0.5, error=0.014), harmless=0.02)) == 1


@pytest.mark.parametrize("how", [{"late": 0.5}, {"late": 0.0, "update": 1.0}])
def test_copies_that_learn_nothing_show_no_harmlessness(how):
    losses = {"before": 1.2, "usual": 1.2, "other": 1.2, "error": 0.005}
    silent, fires = (ahead(run(**how), **losses, training=training) for training in (0.79, 0.81))
    assert not verdict(silent)
    assert len(verdict(fires)) == 1
    assert not verdict(fires, explained=0.1)


def test_nor_is_one_that_learns_nothing_but_says_their_mean():
    """As a net whose last units are dead: it says 0, which costs a variance of standardised targets alone."""
    losses = {"before": 6.5, "usual": 6.5, "other": 0.9}
    assert verdict(ahead(**losses, training=0.82)) == []
    assert len(verdict(ahead(**losses, training=0.78))) == 1
    assert len(verdict(ahead(**losses, training=0.82), explained=0.1)) == 1


def test_the_best_pass_of_the_run_counts_in_variances():
    worse = ahead()
    worse._series.pop("val_loss")
    worse.append("val_loss", "val", [50, 99], [0.2 * 9, 0.6 * 9])  # the run was as good as the copy
    assert verdict(worse) == []


def wanted(made, **thresholds):
    return [(wish.kind, wish.priority) for wish in UnnormalisedTargets(**thresholds).asks(made)]


def test_copies_are_asked_for_where_targets_are_unusual_and_something_is_left_to_learn():
    asked_for = [("standard_targets", 0.648)]
    for unusual, usual in (
        ({"mean": 0.0, "sd": 2.1}, {"mean": 0.0, "sd": 1.9}),
        ({"mean": 0.0, "sd": 0.49}, {"mean": 0.0, "sd": 0.51}),
        ({"mean": -1.1, "sd": 0.5}, {"mean": -0.9, "sd": 0.5}),
        ({}, {"late": 0.0, "after": 0.01}),
    ):
        assert wanted(run(**unusual)) == asked_for
        assert wanted(run(**usual)) == []
    assert wanted(run(mean=0.0, sd=2.1), unusual=3.0) == []
    assert (
        wanted(run(function="poisson_nll_loss")) == wanted(run(reduction="sum")) == []
    )  # nothing would be judged by them
    labels = run()
    for step in (1, 3, 7):
        labels.append("target_stats", "mse_loss", step, np.array([0, 1, 0.1, 0.3, 0, 1, 1.0]))
    assert wanted(labels) == asked_for  # the first look had other numbers
    for most, whole, of in ((1, 1, []), (1, 0.9, asked_for), (3, 1, asked_for)):  # labels, shares, counts
        labels._series["target_stats"].clear()
        labels.append("target_stats", "mse_loss", 7, np.array([0, most, 0.1, 0.3, 0, 1, whole]))
        assert wanted(labels) == of
    assert wanted(RunRecord()) == []
    y = 150 + np.arange(40.0)
    assert wanted(asked([part("train", np.eye(40), y)], features, task="regression")[0]) == []


@pytest.mark.parametrize("seed", range(2))
def test_fires_on_targets_of_some_units_that_are_only_half_told(seed):
    how = {**ADAM, "lr": 0.001, "epochs": 20, "seed": seed}
    x, y, x_val, y_val = table("diabetes", seed)
    assert codes(train((x, 3 * y + 8, x_val, 3 * y_val + 8), nn.MSELoss(), **how)[0])
    assert not codes(train((x, y, x_val, y_val), nn.MSELoss(), **how)[0])
