import warnings

import numpy as np
import pytest
import torch
from torch import nn
from wired import SETTINGS

import trainwatch
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.remedies import remedy
from trainwatch.rules import NotChecked
from trainwatch.rules.tw703_loss_output_mismatch import LossOutputMismatch


def body(outputs, *last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, outputs), *last)


def found(model, criterion, targets, inputs=None):
    """Findings of the rule after ten steps."""
    torch.manual_seed(1)
    x = torch.randn(64, 8) if inputs is None else inputs
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with warnings.catch_warnings(), trainwatch.watch(model, optimizer, loss_fn=criterion, settings=SETTINGS) as watch:
        warnings.simplefilter("ignore")  # torch warns of some of the mistakes
        for _ in range(10):
            optimizer.zero_grad()
            criterion(model(x), targets).backward()
            optimizer.step()
    return list(LossOutputMismatch().check(watch.record))


CLASSES = torch.arange(64) % 4
BINARY = (torch.arange(64) % 2).float()[:, None]
ONE_HOT = torch.eye(4)[CLASSES]
NORMAL = torch.linspace(-2, 2, 64)[:, None]
UNIT = torch.linspace(0, 1, 64)[:, None]
CE, BCE, MSE = nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.MSELoss

MISTAKES = {
    "softmax twice": (lambda: body(4, nn.Softmax(-1)), CE(), CLASSES, "drop-last-activation"),
    "sigmoid before cross-entropy": (lambda: body(4, nn.Sigmoid()), CE(), CLASSES, "drop-last-activation"),
    "relu before cross-entropy": (lambda: body(4, nn.ReLU()), CE(), CLASSES, "drop-last-activation"),
    "sigmoid twice": (lambda: body(1, nn.Sigmoid()), BCE(), BINARY, "drop-last-activation"),
    "softmax before a binary loss": (lambda: body(4, nn.Softmax(-1)), BCE(), ONE_HOT, "drop-last-activation"),
    "log-softmax over the samples": (lambda: body(4, nn.LogSoftmax(0)), nn.NLLLoss(), CLASSES, "softmax-over-classes"),
    "the same, counted from the end": (lambda: body(4, nn.LogSoftmax(-2)), CE(), CLASSES, "softmax-over-classes"),
    "softmax over the samples": (lambda: body(4, nn.Softmax(0)), CE(), CLASSES, "drop-last-activation"),
    "probabilities for nll": (lambda: body(4, nn.Softmax(-1)), nn.NLLLoss(), CLASSES, "log-probabilities"),
    "raw outputs for nll": (lambda: body(4), nn.NLLLoss(), CLASSES, "log-probabilities"),
    "one unit of cross-entropy": (lambda: body(1), CE(), torch.zeros(64, dtype=torch.long), "one-unit-per-class"),
    "softmax over one unit": (lambda: body(1, nn.Softmax(-1)), nn.BCELoss(), BINARY, "one-unit-per-class"),
    "column against flat": (lambda: body(1), MSE(), NORMAL[:, 0], "same-shape"),
    "flat against column": (lambda: nn.Sequential(body(1), nn.Flatten(0)), nn.L1Loss(), NORMAL, "same-shape"),
    "relu below negative targets": (lambda: body(1, nn.ReLU()), MSE(), NORMAL, "unbounded-output"),
    "sigmoid below wide targets": (lambda: body(1, nn.Sigmoid()), MSE(), 100 * UNIT, "unbounded-output"),
    "tanh below wide targets": (lambda: body(1, nn.Tanh()), nn.SmoothL1Loss(), NORMAL, "unbounded-output"),
    "labels of 1 and 2": (lambda: body(1), BCE(), BINARY + 1, "targets-within-reach"),
    "class numbers": (lambda: body(1), MSE(), (torch.arange(64) % 8).float()[:, None], "one-unit-per-class"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_fires_on(name):
    make, criterion, targets, advice = MISTAKES[name]
    (one,) = found(make(), criterion, targets)
    assert one.severity >= Severity.WARNING
    assert one.remedies[0].id == advice


class Distilled(nn.Module):
    def forward(self, outputs, targets):
        return nn.functional.kl_div(outputs.log_softmax(1), targets.softmax(1), reduction="batchmean")


SOUND = {
    "logits": (lambda: body(4), CE(), CLASSES),
    "label smoothing": (lambda: body(4), CE(label_smoothing=0.1), CLASSES),
    "soft targets": (lambda: body(4), CE(), torch.full((64, 4), 0.25)),
    "log-softmax for nll": (lambda: body(4, nn.LogSoftmax(-1)), nn.NLLLoss(), CLASSES),
    "log-softmax for cross-entropy": (lambda: body(4, nn.LogSoftmax(-1)), CE(), CLASSES),
    "log-softmax of positions": (
        lambda: body(8, nn.Unflatten(1, (4, 2)), nn.LogSoftmax(1)),
        nn.NLLLoss(),
        CLASSES[:, None].expand(-1, 2),
    ),
    "log-softmax of positions, then one after the other": (
        lambda: body(8, nn.Unflatten(1, (2, 4)), nn.LogSoftmax(-1), nn.Flatten(0, 1)),
        nn.NLLLoss(),
        CLASSES.repeat_interleave(2),
    ),
    "binary logits": (lambda: body(1), BCE(), BINARY),
    "sigmoid for bce": (lambda: body(1, nn.Sigmoid()), nn.BCELoss(), BINARY),
    "two units": (lambda: body(2), CE(), CLASSES % 2),
    "scaled logits": (lambda: body(4, nn.Tanh(), nn.Linear(4, 4)), CE(), CLASSES),
    "regression": (lambda: body(1), MSE(), NORMAL),
    "sigmoid within bounds": (lambda: body(1, nn.Sigmoid()), MSE(), UNIT),
    "relu of counts": (lambda: body(1, nn.ReLU()), MSE(), 10 * UNIT.square()),
    "counts": (lambda: body(1), MSE(), torch.poisson(torch.full((64, 1), 3.0))),
    "ratings": (lambda: body(1), MSE(), (torch.arange(64) % 5 + 1).float()[:, None]),
    "many outputs": (lambda: body(3), MSE(), torch.randn(64, 3)),
    "distillation": (lambda: body(4), Distilled(), torch.randn(64, 4)),
}


@pytest.mark.parametrize("name", SOUND)
def test_stays_silent_on(name):
    make, criterion, targets = SOUND[name]
    assert found(make(), criterion, targets) == []


def test_the_floor_of_a_second_softmax():
    (one,) = found(body(4, nn.Softmax(-1)), CE(), CLASSES)
    assert one.evidence[0].value == pytest.approx(np.log(np.e + 3) - 1)
    assert "softmax itself" in one.summary
    assert "CrossEntropyLoss" in one.remedies[0].how


def record(function="mse_loss", last="Sigmoid", ours=(32, 1), theirs=(32, 1), classes=None, **targets):
    run = RunRecord()
    known = {"function": function, "last_operation": last, "input_shape": ours, "target_shape": theirs}
    run.set_fact("loss", {function: {**known, "classes": classes}})
    stats = {"least": 0.0, "most": 1.0, "mean": 0.5, "sd": 0.3, "low": 0.05, "high": 0.95, "whole": 0.0, **targets}
    run.append("target_stats", function, 0, np.array(list(stats.values()), np.float32))
    return run


def verdict(run, **thresholds):
    return list(LossOutputMismatch(**thresholds).check(run))


def test_targets_may_be_a_little_beyond_reach():
    assert not verdict(record(high=1.02, most=1.05))
    (one,) = verdict(record(high=1.04, most=1.05))
    assert "a sigmoid at the end of the net reaches 0 to 1" in one.summary
    assert not verdict(record(least=-5.0))  # a single one
    assert not verdict(record(high=1.04, most=1.05), slack=0.2)


@pytest.mark.parametrize("last", ["Relu", "Softplus", "Exp", "Abs"])
def test_what_is_never_negative_reaches_no_negative_targets(last):
    (one,) = verdict(record(last=last, least=-2.0, low=-1.5))
    assert f"a {last.lower()} at the end of the net reaches 0 to inf" in one.summary
    assert [r.id for r in one.remedies] == ["unbounded-output", "targets-within-reach"]
    assert not verdict(record(last=last))


def test_a_softplus_that_is_trained():
    softplus, targets = body(1, nn.Softplus()), torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    assert found(softplus, nn.MSELoss(), targets)
    assert not found(softplus, nn.MSELoss(), targets.abs() + 0.1)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_reach_does_not_depend_on_the_unit(factor):
    scaled = {name: factor * value for name, value in {"least": -1.0, "most": 1.0, "sd": 0.5, "low": -0.8}.items()}
    assert verdict(record(last="Relu", mean=0.0, high=0.8 * factor, **scaled))


def test_shapes_that_only_look_different():
    assert not verdict(record(last="Addmm", ours=(1, 1), theirs=(1,)))
    assert verdict(record(last="Addmm", ours=(2, 1), theirs=(2,)))


def test_class_numbers_are_even_whole_and_begin_at_zero():
    of_eight = {"least": 0.0, "most": 7.0, "mean": 3.5, "sd": 2.29, "low": 0.0, "high": 7.0, "whole": 1.0}
    assert verdict(record(last="Addmm", **of_eight))
    for other in ({"least": 1.0}, {"whole": 0.99}, {"sd": 1.7}, {"mean": 2.5}):
        assert not verdict(record(last="Addmm", **{**of_eight, **other}))
    assert not verdict(record(last="Addmm", ours=(32, 8), theirs=(32, 8), **of_eight))
    assert not verdict(record(last="Addmm", **of_eight), classes=7)


def test_numbers_of_more_than_thirty_classes_are_numbers():
    for classes, fires in ((30, True), (31, False)):
        even = {"least": 0.0, "most": classes - 1, "mean": (classes - 1) / 2, "sd": ((classes**2 - 1) / 12) ** 0.5}
        for shape in ((32, 1), (32,), None):
            made = record(last="Addmm", ours=shape, theirs=shape, low=0.0, high=classes - 1.0, whole=1.0, **even)
            assert [d.severity for d in verdict(made)] == [Severity.WARNING] * fires
            made = record("kl_div", "Addmm", shape, shape, low=0.0, high=classes - 1.0, whole=1.0, **even)
            assert verdict(made) == []


BINARY_LOGITS = "binary_cross_entropy_with_logits"
WIDE, FLAT, UNIT_WIDE = (32, 4), (32,), (32, 1)


@pytest.mark.parametrize(
    ("function", "last", "ours", "theirs", "advice"),
    [
        ("cross_entropy", "Softmax", WIDE, FLAT, "drop-last-activation"),
        ("cross_entropy", "Addmm", UNIT_WIDE, FLAT, "one-unit-per-class"),
        ("cross_entropy", "Addmm", WIDE, FLAT, None),
        ("cross_entropy", "Addmm", (4,), (), None),
        (BINARY_LOGITS, "Sigmoid", UNIT_WIDE, UNIT_WIDE, "drop-last-activation"),
        ("nll_loss", "Softmax", WIDE, FLAT, "log-probabilities"),
        ("nll_loss", "LogSoftmax", WIDE, FLAT, None),
        ("binary_cross_entropy", "Softmax", UNIT_WIDE, UNIT_WIDE, "one-unit-per-class"),
        ("binary_cross_entropy", "Softmax", WIDE, WIDE, None),
        ("binary_cross_entropy", "Softmax", None, UNIT_WIDE, None),
        ("binary_cross_entropy", "Sigmoid", UNIT_WIDE, UNIT_WIDE, None),
        ("mse_loss", "Addmm", UNIT_WIDE, FLAT, "same-shape"),
        ("mse_loss", "Addmm", (4, 1), (1,), None),
        ("mse_loss", "Addmm", None, FLAT, None),
        ("mse_loss", "Addmm", FLAT, None, None),
        ("mse_loss", "Addmm", WIDE, WIDE, None),
    ],
)
def test_what_the_loss_was_given(function, last, ours, theirs, advice):
    made = record(function, last, ours, theirs)
    del made._series["target_stats"]
    assert [d.remedies[0].id for d in verdict(made)] == ([advice] if advice else [])


@pytest.mark.parametrize(
    ("function", "last", "classes", "lowest", "words"),
    [
        ("cross_entropy", "Softmax", 4, np.log(np.e + 3) - 1, "applies softmax itself"),
        ("cross_entropy", "Sigmoid", 4, np.log(np.e + 3) - 1, "wants unbounded logits"),
        ("cross_entropy", "Tanh", 4, np.log(np.e + 3 / np.e) - 1, "wants unbounded logits"),
        (BINARY_LOGITS, "Sigmoid", None, np.log(np.e + 1) - 1, "applies sigmoid itself"),
        ("cross_entropy", "Relu", 4, None, "wants unbounded logits"),
        ("cross_entropy", "Softplus", 4, None, "wants unbounded logits"),
    ],
)
def test_how_low_a_loss_can_get_behind_an_activation(function, last, classes, lowest, words):
    (one,) = verdict(record(function, last, WIDE, WIDE, classes))
    assert one.evidence[0].value == (None if lowest is None else pytest.approx(lowest))
    assert words in one.summary


def test_the_largest_output_shows_that_it_is_no_logarithm():
    made = record("nll_loss", "Softmax", WIDE, FLAT, 4)
    assert verdict(made)[0].evidence[0].value is None
    made.append("output_stats", "nll_loss", 0, [0.0, 1.0, 0.25, 0.2, 0.01, 0.75, 0.0])
    assert verdict(made)[0].evidence[0].value == 0.75


@pytest.mark.parametrize(
    ("function", "last", "targets", "fires"),
    [
        (BINARY_LOGITS, "Addmm", {"least": 1.0, "most": 2.0}, True),
        (BINARY_LOGITS, "Addmm", {"least": -0.5, "low": 0.0}, True),  # a single label
        (BINARY_LOGITS, "Addmm", {}, False),
        ("kl_div", "Sigmoid", {"high": 5.0, "most": 5.0}, False),
    ],
)
def test_labels_and_targets_within_reach(function, last, targets, fires):
    advice = [d.remedies[0].id for d in verdict(record(function, last, **targets))]
    assert advice == ["targets-within-reach"] * fires


@pytest.mark.parametrize(("ours", "longer"), [("column", "outputs"), ("flat", "targets")])
def test_a_loss_written_by_hand_that_compares_each_with_all(ours, longer):
    model = body(1) if ours == "column" else body(1, nn.Flatten(0))
    targets = NORMAL[:, 0] if ours == "column" else NORMAL
    (diagnosis,) = found(model, lambda outputs, y: (outputs - y).square().mean(), targets)
    assert diagnosis.severity == Severity.ERROR
    assert "64 comparisons for one" in diagnosis.summary
    assert (diagnosis.evidence[0].value, diagnosis.evidence[0].threshold) == (64 * 64, 64)
    assert [r.id for r in diagnosis.remedies] == ["same-shape"]
    assert f"{longer} = {longer}.squeeze(-1)" in diagnosis.remedies[0].how


def test_a_loss_written_by_hand_with_equal_shapes_is_not_judged():
    with pytest.raises(NotChecked, match="no loss function was seen"):
        found(body(1), lambda outputs, y: (outputs - y).square().mean(), NORMAL)


def test_abstains_where_no_loss_was_seen():
    unseen = RunRecord()
    unseen.set_fact("loss", {"root": {"function": "root"}})
    assert verdict(unseen) == []
    with pytest.raises(NotChecked):
        verdict(RunRecord())


class Wrapped(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(last))

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("last", [nn.Softmax(-1), nn.Sigmoid(), nn.LogSoftmax(-1)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("advice", ["drop-last-activation", "unbounded-output"])
def test_its_code_takes_the_activation_out_wherever_it_is(advice, last):
    model, x = Wrapped(last), torch.randn(5, 3)
    told = remedy(advice, activation=type(last).__name__.lower(), loss="CrossEntropyLoss", probabilities="outputs")
    exec(told.how, {"torch": torch, "model": model, "outputs": None})
    assert torch.equal(model(x), model.net[0](x))


@pytest.mark.parametrize(
    ("change", "fires"),
    [
        ({}, True),
        ({"function": "cross_entropy"}, True),
        ({"function": "kl_div"}, False),
        ({"normalised": 1}, False),
        ({"normalised": None}, False),
        ({"input_shape": [64]}, False),
        ({"input_shape": None}, False),
    ],
)
def test_over_which_dimension_a_log_softmax_runs(change, fires):
    known = {"function": "nll_loss", "last_operation": "LogSoftmax", "normalised": 0, "input_shape": [64, 4],
             "target_shape": [64], "classes": 4} | change  # fmt: skip
    record = RunRecord()
    record.set_fact("loss", {"loss": known})
    found = list(LossOutputMismatch().check(record))
    assert [r.id for d in found for r in d.remedies] == ["softmax-over-classes"] * fires
    assert all("64 samples of a batch" in d.summary for d in found)


@pytest.mark.parametrize(("outputs", "targets"), [([8, 1], "(8,)"), ([8], "(8, 1)")])
def test_what_the_graph_told_of_a_loss_written_by_hand(outputs, targets):
    record = RunRecord()
    record.set_fact("broadcast", {"outputs": outputs, "compared": [8, 8]})
    (diagnosis,) = LossOutputMismatch().check(record)
    assert f"outputs {tuple(outputs)} and targets {targets} are broadcast: 8 comparisons for one" in diagnosis.summary
    assert (diagnosis.evidence[0].value, diagnosis.evidence[0].threshold) == (64, 8)
