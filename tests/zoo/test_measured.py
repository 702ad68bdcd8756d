"""Faults measured by plain training: the very run is trained, and what is there is told from what is not."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from outcomes import outcome

from benchmarks.zoo.measured import labels
from benchmarks.zoo.measured.definitions import BORDER, DEFINITIONS, degree
from benchmarks.zoo.measured.plain import Plain, floor, guess
from benchmarks.zoo.measured.told import classes, thresholds
from benchmarks.zoo.scenario import Data, Loop, Loss, Model, Optimizer, scenarios
from benchmarks.zoo.training import run
from trainwatch.rules import all_rules

QUICK = replace(
    next(s for s in scenarios("tuning", "healthy_digits") if s.form == "base"),
    data=Data(train=300, val=300),
    loop=Loop(epochs=3),
)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def scenario(name):
    family, form = name.split("/")
    return next(s for s in scenarios("tuning", family) if s.form == form)


@pytest.mark.parametrize("framework", ["pytorch", "lightning"])
def test_the_run_that_is_measured_is_the_one_that_was_watched(framework, monkeypatch):
    monkeypatch.setattr("trainwatch.monitor.LAST_ROUND", 0.0)
    s = replace(QUICK, loop=replace(QUICK.loop, framework=framework), model=Model(dropout=0.2))
    record = run(s, 3)
    seen = record.series("train_loss", record.keys("train_loss")[0]).values
    assert np.array_equal(np.float32(Plain(s, 3).course.batches), seen)


PAIRS = [
    pytest.param("TW201", "overfitted/wide_and_long", marks=pytest.mark.long),
    ("TW101", "rare_digits/four_rare"),
    pytest.param("TW103", "praised_for_the_healthy/a_twentieth_of_the_ill_collected", marks=pytest.mark.long),
    pytest.param("TW205", "stopped_while_learning/two_passes", marks=pytest.mark.long),
    pytest.param("TW204", "too_small_or_held_back/two_units", marks=pytest.mark.long),
    pytest.param("TW601", "rate_too_high_for_plain_steps/hundredfold", marks=pytest.mark.long),
    pytest.param("TW301", "twenty_thin_layers/eight_sigmoids", marks=pytest.mark.long),
    pytest.param("TW304", "one_step_kills_all_units/adam", marks=pytest.mark.long),
    pytest.param("TW305", "hidden_tanh_on_its_flat_ends/inputs_of_hundreds", marks=pytest.mark.long),
    ("TW107", "inputs_left_as_measured/relu"),
    ("TW108", "targets_left_as_measured/sgd"),
    pytest.param("TW208", "one_step_kills_all_units/adam", marks=pytest.mark.long),
    pytest.param("TW603", "a_wave_that_is_overshot/constant", marks=pytest.mark.long),
    ("TW604", "loss_spikes_from_broken_samples/one_in_a_hundred"),
    ("TW303", "values_missing/one_in_fifty"),
]


@pytest.mark.parametrize(("code", "faulty"), PAIRS)
def test_a_fault_is_there_in_the_faulty_form_and_not_in_the_repaired_one(code, faulty):
    s = scenario(faulty)
    assert degree(Plain(s, 0), code) >= 1
    sound = degree(Plain(scenario(f"{s.family}/base"), 0), code)
    assert sound is None or sound < BORDER


CHANGES = [
    ("TW309", {"model": Model(init="zero"), "optimizer": Optimizer("SGD", 0.1)}),
    ("TW309", {"model": Model(init="normal", gain=1.0)}),
    ("TW206", {"optimizer": Optimizer("AdamW", 3e-3, weight_decay=100.0)}),
    ("TW308", {"optimizer": Optimizer("SGD", 0.1), "loop": Loop(epochs=4, clip=1e-3)}),
    ("TW307", {"optimizer": Optimizer(rates={"0": 1e-4, "1": 1e-4}), "loop": Loop(epochs=20)}),
    ("TW207", {"data": Data(train=40, val=300), "loop": Loop(epochs=60, batch=10)}),
    ("TW102", {"model": Model(init="zero"), "optimizer": Optimizer("SGD", 1e-6)}),
    ("TW403", {"optimizer": Optimizer("SGD", 1.0), "loop": Loop(epochs=60, batch=300)}),
    ("TW501", {"loss": Loss(l1=1e-3)}),
    ("TW106", {"data": Data(train=300, val=300, flips=0.1)}),
    ("TW401", {"model": Model(init="zero"), "optimizer": Optimizer("SGD", 0.5)}),
    ("TW302", {"optimizer": Optimizer("SGD", 1e4)}),
    ("TW105", {"loop": Loop(epochs=2, order="sorted")}),
    ("TW705", {"optimizer": Optimizer(parameters="head")}),
    ("TW706", {"model": Model(activation="none", norm="batch")}),
]


@pytest.mark.parametrize(("code", "changes"), CHANGES)
def test_a_change_makes_the_fault(code, changes):
    assert degree(Plain(replace(QUICK, **changes), 0), code) >= 1
    without = degree(Plain(replace(QUICK, loop=Loop(epochs=20)), 0), code)
    assert without is None or without < 1


def test_a_rate_is_slow_where_a_higher_one_ends_lower():
    slow, quick = (
        Plain(replace(QUICK, optimizer=Optimizer("Adam", lr), loop=Loop(epochs=20)), 0) for lr in (2e-5, 5e-3)
    )
    assert degree(slow, "TW602") > 5
    assert degree(quick, "TW602") < BORDER


def test_a_rate_is_too_high_where_a_net_is_thrown_off_and_fits_its_own_samples_alone():
    thrown = Plain(scenario("learned_by_heart_after_a_throw/twentyfold"), 1)
    assert thrown.end < 0.05 * thrown.guess[0], "training gets as low by it"
    assert min(thrown.course.val[1:]) > thrown.guess[1]
    assert degree(thrown, "TW601") > 5


def test_every_definition_is_of_a_rule_and_says_what_it_means():
    assert set(DEFINITIONS) <= set(all_rules())
    assert set(labels.BY_DRAW) <= set(DEFINITIONS)
    assert all(d.__doc__ for d in DEFINITIONS.values())
    assert degree(Plain(QUICK, 0), "TW703") is None, "that is told by construction"


def test_a_guess_and_what_no_net_gets_below():
    sets = Plain(QUICK, 0).course.sets
    counts = torch.bincount(sets.y_train).float()
    share = counts / counts.sum()
    assert guess(QUICK, sets)[0] == pytest.approx(float(-(share * share.log()).sum()), rel=1e-3)
    smooth = Loss(smoothing=0.1)
    sure = torch.full((1, 10), math.log(0.01)).index_fill(1, torch.tensor([3]), math.log(0.91))
    least = torch.nn.functional.cross_entropy(sure, torch.tensor([3]), label_smoothing=0.1)
    assert floor(smooth, sets.y_train, 10) == pytest.approx(float(least), rel=1e-5)
    y = torch.tensor([0.0, 1.0, 5.0])
    own = torch.nn.functional.poisson_nll_loss(y.clamp(min=1e-12), y, log_input=False, eps=0)
    assert floor(Loss("poisson"), y, 1) == pytest.approx(float(own), abs=1e-5)
    assert floor(Loss(), sets.y_train, 10) == 0


def test_classes_that_validation_cannot_tell_are_not_judged():
    course = Plain(replace(QUICK, data=Data(train=400, val=20, keep={"3": 0.1})), 0).course
    told = classes(course)
    assert told.untold == [3]
    assert told.rare == []
    assert degree(Plain(replace(QUICK, data=Data(train=400, val=20, keep={"3": 0.1})), 0), "TW101") is None


def test_the_best_threshold_is_tried_for_each_output():
    two = replace(QUICK, data=Data("breast_cancer"), loss=Loss("bce_logits"))
    course = Plain(two, 0).course
    before = thresholds(course)
    head = [m for m in course.model.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        head.bias -= 6.0
    assert before < 0.05 < 0.2 < thresholds(course)
    assert math.isnan(thresholds(Plain(QUICK, 0).course)), "ten classes are put to no threshold"


def judged(*said, truth=(), also=(), every=False, found=None):
    return labels.of_run(outcome(*said, truth=truth, also=also, every=every), found or {})


def test_a_fault_that_is_not_there_makes_a_sound_run():
    run = judged("A", truth=("A",), found={"A": 0.5})
    assert (run.scenario.planted, run.beside) == (False, ("A",))
    assert judged("A", truth=("A",), found={"A": 1.0}).found
    assert judged("A", truth=("A",), found={"A": None}).found, "what could not be told stands as it is declared"
    border = judged("A", truth=("A",), found={"A": BORDER})
    assert (border.scenario.planted, border.silent) == (False, True)


def test_what_is_measured_of_a_run_goes_before_what_is_declared():
    assert judged("B", found={"B": 1.2}).silent
    assert not judged("B", also=("B",), found={"B": 0.1}).silent
    some = judged("B", truth=("A", "B"), found={"A": 2.0, "B": 0.1})
    assert (some.found, some.beside) == (False, ("B",))
    both = judged("B", truth=("A", "B"), every=True, found={"A": 0.9, "B": 1.5})
    assert (both.scenario.truth, both.first) == (("B",), True)


def test_overfitting_is_one_fault_whatever_the_score_does_meanwhile(tmp_path):
    sure = {"TW201": 5.0, "TW202": BORDER, "TW203": 0.1}
    run = judged("TW201", truth=("TW202",), found=sure)
    assert (run.scenario.truth, run.first) == (("TW201", "TW202"), True)
    assert not judged("TW203", truth=("TW202",), found=sure).found
    assert judged("TW202", truth=("TW202",), found=None).first
    (job,) = labels.to_measure(tmp_path, [outcome(truth=("TW203",))])
    assert job[3] == ("TW201", "TW202", "TW203")


def test_why_a_class_is_missed_counts_where_it_is_measured(tmp_path):
    run = judged("TW101", truth=("TW103",), found={"TW101": 1.5, "TW103": 1.2})
    assert (run.scenario.truth, run.first) == (("TW101", "TW103"), True)
    assert not judged("TW101", truth=("TW103",), found={"TW101": 0.5, "TW103": 1.2}).found
    assert not judged("TW101", truth=("TW103",)).found, "not measured"
    assert not judged("TW101", truth=("TW103",), found={"TW101": 1.5, "TW103": 0.5}).scenario.planted, (
        "none is unnoticed"
    )
    assert not judged("TW103", truth=("TW101",), found={"TW101": 1.5, "TW103": 1.2}).found, "what hides it is no cause"
    (job,) = labels.to_measure(tmp_path, [outcome(truth=("TW103",))])
    assert job[3] == ("TW101", "TW102", "TW103", "TW104")


def test_what_is_measured_is_stored_and_measured_once(tmp_path):
    s = replace(QUICK, planted=True, truth=("TW102", "TW703"))
    heard = replace(outcome("TW208"), scenario=s)
    (job,) = labels.to_measure(tmp_path, [heard])
    assert job == (tmp_path, s, 0, ("TW102", "TW208"))
    assert labels.measure(job) == (s, 0, "")
    found = labels.degrees(tmp_path, s, 0)
    assert set(found) == {"TW102", "TW208"}
    assert labels.to_measure(tmp_path, [heard]) == []
    changed = replace(s, loop=Loop(epochs=1))
    assert labels.degrees(tmp_path, changed, 0) == {}, "another training than the one that was measured"


def test_what_is_said_is_measured_where_it_was_not_planted(tmp_path):
    by_construction = outcome("TW106", "TW705", "TW703", truth=("TW705",))
    (job,) = labels.to_measure(tmp_path, [by_construction])
    assert job[3] == ("TW106",), "what was planted stands, and TW703 has no definition"
    said = replace(outcome("TW705"), scenario=replace(QUICK, optimizer=Optimizer(parameters="head")))
    (job,) = labels.to_measure(tmp_path, [said])
    labels.measure(job)
    assert labels.of_run(said, labels.degrees(tmp_path, said.scenario, 0)).silent


@pytest.mark.parametrize(("model", "left_out"), [
    (Model(pretrained=1, frozen=1), False),  # what was learned before is kept
    (Model(frozen=1), True),
    (Model(unregistered=True), True),
    (Model(init="zero"), False),  # the first layer gets no gradient
])  # fmt: skip
def test_weights_are_left_out_that_could_learn(model, left_out):
    of_some = replace(QUICK, model=model, optimizer=Optimizer(parameters="trainable"), loop=Loop(epochs=1, batch=300))
    assert (degree(Plain(of_some, 0), "TW705") > 1) == left_out


def test_a_single_layer_is_linear_as_it_should_be():
    assert degree(Plain(replace(QUICK, model=Model(hidden=())), 0), "TW706") == 0


def test_what_cannot_be_measured_is_stored_as_such_and_told(tmp_path):
    s = replace(QUICK, optimizer=Optimizer("NoSuch"))
    _, _, wrong = labels.measure((tmp_path, s, 0, ("TW102",)))
    assert "NoSuch" in wrong
    assert json.loads(next(tmp_path.rglob("*.json")).read_text())["degrees"] == {"TW102": None}
