import pytest
import torch
from torch import nn
from tried import CE, batch, net, tried

from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw711_high_first_loss import HighFirstLoss


def with_large_answers(factor):
    model = net()
    with torch.no_grad():
        model[2].weight.mul_(factor)
    return model


def found_in(report):
    return [d for cause in report.diagnoses for d in cause.walk() if d.code == "TW711"]


@pytest.mark.parametrize("seed", range(2))
def test_fires_on_answers_that_begin_far_too_sure(seed):
    torch.manual_seed(seed)
    model = with_large_answers(100.0)
    (found,) = found_in(tried(model, CE(), batch(seed=seed)))
    assert (found.severity, found.where) == ("warning", ("2",))
    with torch.no_grad():  # what the remedy says helps
        model[2].weight.mul_(float(found.remedies[0].title.rpartition(" ")[2]))
    assert found_in(tried(model, CE(), batch(seed=seed))) == []


@pytest.mark.parametrize("factor", [0.0, 1.0, 3.0])
def test_is_silent_where_they_begin_undecided(factor):
    assert found_in(tried(with_large_answers(factor), CE(), batch())) == []


def test_a_rare_class_is_no_sign_of_anything():
    x, y = batch()
    report = tried(net(outputs=1), nn.BCEWithLogitsLoss(), (x, (torch.arange(16) == 0).float()[:, None]))
    assert found_in(report) == []
    assert found_in(tried(net(), CE(), (x, torch.zeros_like(y)))) == []


def record_of(function, start, subject="preflight", sd=1.0, classes=None, arguments=(), trained=0):
    record = RunRecord()
    record.set_fact("subject", subject)
    record.set_fact("start_weights", {"trained": trained})
    known = {"function": function, "reduction": "mean", "classes": classes, "arguments": dict.fromkeys(arguments, 3.0)}
    record.set_fact("loss", {function: known})
    record.append("target_stats", function, 0, [-1.0, 1.0, 0.0, sd, -1.0, 1.0, 0.0])
    record.append("train_loss", function, 0, start)
    return record


@pytest.mark.parametrize(
    ("function", "start", "options", "found"),
    [
        ("cross_entropy", 12.0, {"classes": 10}, ["warning"]),  # ln 10 is 2.303
        ("cross_entropy", 11.0, {"classes": 10}, []),
        ("binary_cross_entropy_with_logits", 3.5, {}, ["warning"]),  # ln 2 is 0.693
        ("binary_cross_entropy_with_logits", 3.4, {}, []),
        ("mse_loss", 26.0, {}, ["warning"]),
        ("mse_loss", 24.0, {}, []),
        ("mse_loss", 26e6, {"sd": 1e3}, ["warning"]),
        ("mse_loss", 26.0, {"trained": 3}, ["info"]),
        ("mse_loss", 26.0, {"subject": "run"}, []),
        ("binary_cross_entropy_with_logits", 3.5, {"arguments": ("label_smoothing",)}, ["warning"]),
    ],
)
def test_thresholds(function, start, options, found):
    assert [d.severity for d in HighFirstLoss().check(record_of(function, start, **options))] == found


@pytest.mark.parametrize("arguments", [("pos_weight",), ("weight",)])
def test_abstains_where_labels_are_weighted(arguments):
    record = record_of("binary_cross_entropy_with_logits", 50.0, arguments=arguments)
    with pytest.raises(NotChecked):
        list(HighFirstLoss().check(record))
    with pytest.raises(NotChecked):
        list(HighFirstLoss().check(record_of("l1_loss", 50.0)))


@pytest.mark.parametrize("start", [float("inf"), 50.0])
def test_abstains_where_the_loss_of_a_guess_or_the_first_one_is_not_known(start):
    record = record_of("cross_entropy", start, classes=10 if start > 1e9 else None)
    with pytest.raises(NotChecked):
        list(HighFirstLoss().check(record))
    record = record_of("cross_entropy", 50.0)
    record.set_fact("loss", {"cross_entropy": {"function": "cross_entropy", "reduction": "sum", "classes": 10}})
    with pytest.raises(NotChecked):
        list(HighFirstLoss().check(record))


def test_an_undecided_net_does_not_know_how_frequent_classes_are():
    record = record_of("cross_entropy", 11.0, classes=10)
    record.append("train_classes", "targets", 0, [991.0, *[1.0] * 9, 0.0])
    record.set_fact("start_weights", None)
    assert list(HighFirstLoss().check(record)) == []


@pytest.mark.parametrize(
    ("function", "sd", "outputs", "factor"),
    [
        ("mse_loss", 1.0, 100.0, "0.001"),
        ("mse_loss", 10.0, 100.0, "0.01"),
        ("mse_loss", 1.0, 0.01, "1"),
        ("mse_loss", 1.0, 0.0, "0.1"),
        ("mse_loss", 1.0, None, "0.1"),
        ("binary_cross_entropy", 0.0, 100.0, "0.001"),  # all samples have one label
        ("binary_cross_entropy", None, 100.0, "0.001"),
    ],
)
def test_the_factor_brings_outputs_to_a_tenth_of_the_scale_of_the_targets(function, sd, outputs, factor):
    record = record_of(function, 1e4, sd=sd or 0.0)
    if sd is None:
        del record._series["target_stats"]
    if outputs is not None:
        record.append("output_stats", function, 0, [-outputs, outputs, 0.0, outputs, -outputs, outputs, 0.0])
    record.set_fact("start_weights", None)
    (found,) = HighFirstLoss().check(record)
    assert found.remedies[0].title.rpartition(" ")[2] == factor
