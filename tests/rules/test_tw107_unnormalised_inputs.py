import numpy as np
import pytest
import torch
from begun_copies import tried
from scaled import table, train
from torch import nn

from audited import asked, part
from trainwatch.auditing.measures import features
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw107_unnormalised_inputs import UnnormalisedInputs


def codes(report):
    return [d.code for d in report.diagnoses if d.code == "TW107"]


@pytest.mark.parametrize("seed", range(3))
def test_fires_first_on_raw_features(seed):
    report, _ = train(table("wine", seed, "raw"), nn.CrossEntropyLoss(), seed=seed)
    found = report.diagnoses[0]
    assert found.code == "TW107"
    assert found.evidence[0].value > 100
    assert found.evidence[1].value > 100
    assert "x_train.std(0)" in found.remedies[0].how


@pytest.mark.parametrize("seed", range(3))
def test_stays_silent_on_prepared_features_and_behind_a_batch_norm(seed):
    assert not codes(train(table("wine", seed), nn.CrossEntropyLoss(), seed=seed)[0])
    first = [nn.BatchNorm1d(13)]
    assert not codes(train(table("wine", seed, "raw"), nn.CrossEntropyLoss(), seed=seed, first=first)[0])


def test_stays_silent_on_large_inputs_that_are_learned():
    x, y, x_val, y_val = table("wine", 0)
    data = x * 300, y, x_val * 300, y_val
    report, record = train(data, nn.CrossEntropyLoss(), optimizer=torch.optim.Adam, lr=1e-3)
    assert record.series("input_stats", "train").history()[1][0, 3] > 100
    assert not codes(report)


def run(*, rms=200.0, uneven=1.0, end=1.0, first="Linear", steps=300, finished=True, reach=None):
    """A run; `reach` is where nine in ten entries lie, by default as far from zero as the root mean square."""
    low, high = reach or (-rms, rms)
    record = RunRecord()
    losses = np.linspace(1.1, end, steps) + 0.01 * np.random.default_rng(0).standard_normal(steps)
    record.append("train_loss", "cross_entropy", np.arange(steps), losses)
    record.append("input_stats", "train", 0, np.array([0, 0, 0, rms, low, high, 0, rms * uneven, rms]))
    record.set_fact("parameters", [{"name": "0.weight", "module": "0"}])
    record.set_fact("modules", [{"name": "a", "type": "Flatten"}, {"name": "0", "type": first}])
    record.set_fact("run", {"steps": steps, "finished": finished})
    return record


def verdict(record, **thresholds):
    return list(UnnormalisedInputs(**thresholds).check(record))


@pytest.mark.parametrize(
    ("fires", "silent"),
    [
        ({"rms": 11.0}, {"rms": 9.0}),
        ({"rms": 0.04}, {"rms": 0.06}),
        ({"rms": 1.0, "uneven": 31.0}, {"rms": 1.0, "uneven": 29.0}),
        ({"end": 0.9}, {"end": 0.1}),
        ({"end": 0.35}, {"end": 0.2}),
        ({}, {"reach": (-1.0, 1.0)}),
        ({"rms": 1e4, "reach": (-11.0, 2.0)}, {"rms": 1e4, "reach": (-9.0, 2.0)}),
        ({}, {"first": "BatchNorm1d"}),
        ({"steps": 20}, {"steps": 19}),
        ({"steps": 200, "finished": False}, {"steps": 199, "finished": False}),
    ],
)
def test_each_condition_is_needed(fires, silent):
    (found,) = verdict(run(**fires))
    assert found.margin > 0
    assert verdict(run(**silent)) == []


def test_a_loss_that_is_not_finite_is_harm():
    record = run()
    record.append("train_loss", "cross_entropy", np.arange(300, 900), np.full(600, np.inf))
    assert len(verdict(record)) == 1


def test_so_is_one_that_never_was_finite():
    record = run()
    del record._series["train_loss"]
    record.append("train_loss", "cross_entropy", np.arange(300), np.full(300, np.inf))
    (found,) = verdict(record)
    assert found.margin == 1e3


def test_the_less_was_learned_the_larger_the_margin():
    (little,), (nothing,) = (verdict(run(end=end)) for end in (0.35, 0.9))
    assert 0 < little.margin < nothing.margin < 1e3


def test_abstains_where_inputs_were_not_seen():
    with pytest.raises(NotChecked):
        verdict(RunRecord())


def on_data(x):
    return [d for d in asked([part("train", x)], features)[1].diagnoses if d.code == "TW107"]


def test_on_data_alone_a_raw_table_is_a_remark():
    x = table("wine", 0, "raw")[0].numpy()
    (d,) = on_data(x)
    assert d.severity == Severity.INFO
    assert "scale them before training" in d.summary
    assert on_data(table("wine", 0)[0].numpy()) == []


@pytest.mark.parametrize(("factor", "severity"), [(40.0, Severity.WARNING), (20.0, None)])
@pytest.mark.parametrize("unit", [1.0, 1e-2])
def test_on_data_alone_a_feature_beside_others_of_one_scale_is_a_warning(factor, unit, severity):
    x = table("wine", 0)[0].numpy() * unit
    x[:, 4] *= factor
    assert [d.severity for d in on_data(x) if d.where == ("feature 4",)] == ([severity] if severity else [])


def test_on_data_alone_no_table_is_collected_on_such_a_scale():
    x = table("wine", 0, "raw")[0].numpy()
    assert [d.severity for d in on_data(x * 1e5)] == [Severity.WARNING]
    assert [d.severity for d in on_data(x * 1e2)] == [Severity.INFO]


def of_data(**how):
    made = run(**how)
    made.set_fact("subject", "data")
    return made


def with_features(made, scales):
    """The record with features of these deviations."""
    rows = [[300, 0, 0, -3 * sd, 3 * sd, 0, sd, 300, np.nan, np.nan, 0, 0] for sd in scales]
    made.append("feature_stats", "train", 0, rows)
    return made


@pytest.mark.parametrize(
    ("how", "severity"),
    [
        ({"rms": 1.1e6}, Severity.WARNING),
        ({"rms": 0.9e6}, Severity.INFO),
        ({"rms": 1.0, "uneven": 1.1e6}, Severity.WARNING),
        ({"rms": 1.0, "uneven": 0.9e6}, Severity.INFO),
    ],
)
def test_on_data_alone_a_scale_of_millions_is_a_warning(how, severity):
    (found,) = verdict(of_data(**how))
    assert found.severity == severity
    assert found.evidence[0].value == pytest.approx(how.get("uneven", 1.0))


def test_on_data_alone_an_odd_feature_is_told_where_the_batches_do_not_show_it():
    (found,) = verdict(with_features(of_data(rms=1.0), [40.0, *[1.0] * 9]))
    assert found.severity == Severity.WARNING
    assert found.where == ("feature 0",)
    assert verdict(with_features(of_data(rms=1.0), [20.0, *[1.0] * 9])) == []


@pytest.mark.parametrize(("largest", "told"), [(2.0, True), (2.9, True), (3.1, False), (5.0, False)])
def test_on_data_alone_others_share_a_scale_within_three_times_the_median(largest, told):
    made = with_features(of_data(rms=1.0), [40.0, *[largest] * 2, *[1.0] * 7])
    assert bool(verdict(made)) is told


def test_on_data_alone_a_feature_beside_others_that_are_always_zero_is_not_odd():
    assert verdict(with_features(of_data(rms=1.0), [40.0, *[0.0] * 9])) == []


@pytest.mark.parametrize("constant", [0.0, 0.1, 7.0, -3e5])
def test_what_never_changes_in_training_stays_small_in_validation(constant):
    (found,) = verdict(run())
    train = torch.randn(50, 3) * torch.tensor([300.0, 0.0, 1e-5]) + torch.tensor([1000.0, constant, 0.0])
    val = train + torch.tensor([0.0, 1.0, 0.0])
    code = {"x_train": train, "x": val, "torch": torch}
    exec(found.remedies[0].how, code)
    assert code["x"].isfinite().all()
    assert code["x"][:, 1] == pytest.approx(1.0, abs=0.05)
    assert code["x"].std(0)[[0, 2]] == pytest.approx(1.0, rel=1e-3)


def ahead(made=None, **losses):
    return tried(made or run(rms=5.0, end=0.2), "standard_inputs", **{"before": 0.9, "usual": 0.8, **losses})


def test_a_copy_on_standardised_inputs_that_leads_is_told():
    (found,) = verdict(ahead())
    assert found.margin > 10
    assert "inputs have a root mean square of 5, and a copy with standardised inputs came to a" in found.summary
    shown = found.evidence[-1]
    assert (shown.name, shown.value) == ("lead of the copy with standardised inputs", pytest.approx(0.4))
    assert shown.threshold == pytest.approx(0.05 * np.log(3), rel=0.01)
    assert found.remedies[0].id == "normalise-inputs"
    assert verdict(ahead(), better=0.5) == []


@pytest.mark.parametrize(
    "how", [{"other": 0.79}, {"other": 0.89, "before": 0.9, "usual": 1.3}, {"error": 0.3}, {"training": 0.85}]
)
def test_one_that_does_not_lead_is_not(how):
    assert verdict(ahead(**how)) == []


def wanted(made, **thresholds):
    return [(wish.kind, wish.priority) for wish in UnnormalisedInputs(**thresholds).asks(made)]


def test_copies_are_asked_for_where_inputs_are_unusual_and_something_is_left_to_learn():
    asked_for = [("standard_inputs", 0.648)]
    for unusual, usual in (
        ({"rms": 3.1}, {"rms": 2.9}),
        ({"rms": 0.32}, {"rms": 0.34}),
        ({"rms": 1.0, "uneven": 9.1}, {"rms": 1.0, "uneven": 8.9}),
        ({}, {"first": "LayerNorm"}),
        ({"end": 0.1}, {"end": -0.1}),
    ):
        assert wanted(run(**unusual)) == asked_for
        assert wanted(run(**usual)) == []
    assert wanted(run(rms=5.0), unusual=6.0) == []
    beside = run(rms=1.0)
    beside.append("input_stats", "train", 1, np.array([0, 0, 2.0, 0.5, 1, 3, 0, 2, 2]))
    assert wanted(beside) == []  # medians over the looks
    for step in (3, 7):
        beside.append("input_stats", "train", step, np.array([0, 0, 2.0, 0.5, 1, 3, 0, 2, 2]))
    assert wanted(beside) == asked_for
    assert wanted(asked([part("train", np.eye(3), np.ones(3))], features)[0]) == []


@pytest.mark.parametrize("seed", range(3))
def test_fires_where_most_is_learned_from_readings_far_from_zero_and_could_have_been_sooner(seed):
    x, y, x_val, y_val = table("wine", seed)
    how = {"optimizer": torch.optim.Adam, "lr": 0.003, "epochs": 40, "seed": seed}
    report, _ = train((x + 8, y, x_val + 8, y_val), nn.CrossEntropyLoss(), **how)
    (found,) = [d for d in report.diagnoses if d.code == "TW107"]
    assert found.evidence[2].value > 0.7  # of its loss is gone
    assert "a copy with standardised inputs" in found.summary
    assert not codes(train((x, y, x_val, y_val), nn.CrossEntropyLoss(), **how)[0])


def test_stays_silent_where_large_inputs_make_up_for_a_low_rate():
    x, y, x_val, y_val = table("wine", 0)
    report, record = train((2 * x + 8, y, 2 * x_val + 8, y_val), nn.CrossEntropyLoss(), lr=0.003)
    assert record.has("standard_inputs")
    assert not codes(report)
