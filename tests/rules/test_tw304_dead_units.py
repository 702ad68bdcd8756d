import numpy as np
import pytest
import torch
from lively import CHANCE, STEPS, adam, ending, everything, fit, probed, sgd, site, times, with_biases
from synthetic_gradients import mlp
from torch import nn

from trainwatch.config import Settings
from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.engine import judge, nest
from trainwatch.rules.tw304_dead_units import DeadUnits
from trainwatch.symptoms.losses import loss_course

RULE = DeadUnits()


def verdict(made, **thresholds):
    return list(DeadUnits(**thresholds).check(made))


@pytest.mark.parametrize("function", ["relu", "hardtanh", "threshold"])
@pytest.mark.parametrize(("dead", "severity"), [(0.72, "WARNING"), (0.9, "WARNING"), (1.0, "ERROR")])
@pytest.mark.parametrize("gained", [0.0, 0.6, -1.0])
def test_fires(dead, severity, gained, function):
    (found,) = verdict(probed(site(dead=dead, function=function), losses=ending(gained)))
    assert found.severity == Severity[severity]
    assert found.margin > 0
    assert found.where == ("1",)
    assert found.evidence[0].value == pytest.approx(dead)
    assert found.evidence[0].threshold == RULE.many
    assert found.evidence[2].value == pytest.approx(gained, abs=0.02)
    assert found.evidence[2].threshold == RULE.learned


def test_the_message_says_how_many_where_and_what_came_of_it():
    sites = [site(dead=0.75 + 0.03125 * i, module=str(i)) for i in range(6)]
    (found,) = verdict(probed(*sites))
    assert found.summary == (
        "units that no sample activates: 75% in '0:relu', 78% in '1:relu', 81% in '2:relu', 84% in '3:relu' and 2 "
        "more; the loss went 2.31 at the start, 2.28 at best, 2.29 at the end (2.3 is chance)"
    )
    assert found.where == tuple("012345")
    assert (found.evidence[0].where, found.evidence[0].value) == ("5:relu", 0.90625)
    assert found.evidence[0].note == "of 64; each active for fewer than 3 in 200 entries"
    (four,) = verdict(probed(*sites[:4]))
    assert "more" not in four.summary


SILENT = {
    "fewer are dead": probed(site(dead=0.68)),
    "they are rarely active, but not dead": probed(site() | {"rows": [(0.1, 1.0, 0.0, 1.0, 200, 64)], "at": [100]}),
    "the net learns": probed(site(dead=0.95), losses=ending(0.8)),
    "the units came back": probed(site(dead=0.3, first=1.0)),
    "a sigmoid that is as good as zero": probed(site(dead=1.0, flat=1.0, function="sigmoid")),
    "a tanh that is zero": probed(site(dead=1.0, function="tanh")),
    "another function": probed(site(dead=1.0, function="gelu")),
    "no activation": probed(),
}


@pytest.mark.parametrize("made", SILENT.values(), ids=SILENT)
def test_silent(made):
    assert verdict(made) == []


def test_where_some_layers_have_samples_enough_those_are_judged():
    few, many = site(dead=1.0, entries=49, module="few"), site(dead=0.8, entries=50, module="many")
    (found,) = verdict(probed(few, many))
    assert found.where == ("many",)
    assert verdict(probed(few, many | {"rows": [(0.1, 0.1, 0, 1, 50, 64)]})) == []


def test_the_margin_is_in_standard_errors_of_the_nearer_threshold():
    (found,) = verdict(probed(site(dead=0.8, units=100)))
    assert found.margin == pytest.approx(0.1 / (0.8 * 0.2 / 100) ** 0.5)
    (of_few,) = verdict(probed(site(dead=0.8, units=25)))
    assert of_few.margin == pytest.approx(found.margin / 2)
    (whole,) = verdict(probed(site(dead=1.0, units=64)))
    assert whole.margin == pytest.approx(0.3 * 64)  # one unit less or more
    (near,) = verdict(probed(site(dead=1.0, units=10**6), losses=ending(0.7)))
    error = 1.2533 * 0.03 / (STEPS / 5) ** 0.5 / CHANCE
    assert near.margin == pytest.approx((RULE.learned - 0.7) / error, rel=0.35)
    (exact,) = verdict(probed(site(dead=1.0, units=10**6), losses=np.full(STEPS, CHANCE)))
    assert exact.margin == 1e3


@pytest.mark.parametrize(("first", "onset"), [(None, 100), (0.72, 50), (0.68, 100), (0.0, 100)])
def test_the_onset_is_the_first_probe_where_they_were_dead_then(first, onset):
    (found,) = verdict(probed(site(dead=0.9, first=first)))
    assert found.onset_step == onset


def cures(made):
    (found,) = verdict(made)
    return {r.id: r for r in found.remedies}


def test_a_relu_that_leaks_is_offered_where_units_are_dead():
    some = [site(dead=0.9, module="1"), site(dead=0.1, module="3"), site(dead=0.8, module="5")]
    assert "for name in ['1', '5']:" in cures(probed(*some))["leaky-relu"].how
    both = [{"name": "1", "type": "ReLU", "order": 1}, {"name": "5", "type": "ReLU6", "order": 5}]
    assert "for name in ['1', '5']:" in cures(probed(*some, modules=both))["leaky-relu"].how
    called = [site(dead=0.9, module="block")]  # as a function: all modules that could be swapped are named
    assert "for name in ['1', '5']:" in cures(probed(*called, modules=both))["leaky-relu"].how
    dropout = [{"name": "1", "type": "Dropout", "order": 1}]
    assert "for name in []:" in cures(probed(*called, modules=dropout))["leaky-relu"].how


def test_a_lower_rate_is_offered_where_a_step_was_long():
    """A gradient of 1 a weight at a rate of 0.1, and weights of a norm that `parameter` sets: 96**-0.5 a weight."""
    rms = np.full(STEPS, 1e-6)
    rms[30] = 1.0
    shown = cures(probed(site(dead=0.9, first=0.0, at=(20, 90)), rms=rms))["lower-learning-rate"]
    ratio = 0.1 * 96**0.5
    assert shown.title == f"Lower the learning rate from 0.1 to about {0.1 * 0.01 / ratio:.1g}"
    assert shown.why.startswith(f"The update at step 30 was {ratio:.2g} times as long as the weights.")
    rms = np.full(STEPS, 1e-6)
    rms[95] = 1.0  # they were dead before
    assert "lower-learning-rate" not in cures(probed(site(dead=0.9, first=0.0, at=(20, 90)), rms=rms))


@pytest.mark.parametrize(("ratio", "offered"), [(0.12, True), (0.08, False)])
def test_steps_of_less_than_a_tenth_of_the_weights_kill_nothing(ratio, offered):
    assert ("lower-learning-rate" in cures(probed(site(dead=0.9), rms=ratio / (0.1 * 96**0.5)))) is offered


def test_an_unknown_optimiser_is_not_told_to_step_less():
    assert "lower-learning-rate" not in cures(probed(site(dead=0.9), rms=1.0, optimizer="Adafactor"))


def test_other_weights_are_offered_where_units_were_dead_at_first():
    shown = cures(probed(site(dead=0.9, first=0.72), weights=(8.0, 1.0)))["reinitialise"]
    assert shown.why.startswith(f"0 begins with a deviation of {8 / 32**0.5:.3g}; for 32 inputs 0.25 keeps")
    assert "reinitialise" not in cures(probed(site(dead=0.9, first=0.68)))
    one_is_zero = probed(site(dead=0.9, first=0.72), weights=(1.0, 0.0, 0.0))
    why = cures(one_is_zero)["reinitialise"].why
    assert why.startswith("2 begins with a deviation of 0; for"), "the last is often zero, and it does no harm there"
    made = probed(site(dead=0.9))
    assert list(cures(made)) == ["reinitialise", "leaky-relu"]
    last, first = made.facts["parameters"]
    made.set_fact("parameters", [last | {"order": 9}, first | {"shape": [8, 4, 3, 3]}])
    assert "2 begins with" in (why := cures(made)["reinitialise"].why)
    assert f"for 36 inputs {(2 / 36) ** 0.5:.3g} keeps" in why
    made.set_fact("parameters", [p | {"kind": "bias"} for p in made.facts["parameters"]])
    assert "reinitialise" not in cures(made)
    made.set_fact("parameters", [{k: v for k, v in last.items() if k != "std"}, first | {"kind": "bias"}])
    assert "reinitialise" not in cures(made)


def effect(code, onset=20):
    return Diagnosis(code, "another", Severity.ERROR, "fault", onset_step=onset, margin=5.0, confidence=0.99)


@pytest.mark.parametrize("code", ["TW204", "TW205", "TW208", "TW602"])
def test_what_it_leads_to_is_nested_under_it(code):
    (found,) = verdict(probed(site(dead=1.0)))
    (root,) = nest([effect(code), found])
    assert [d.code for d in root.walk()] == ["TW304", code]


def test_other_faults_stand_beside_it():
    (found,) = verdict(probed(site(dead=1.0)))
    assert len(nest([found, effect("TW101"), effect("TW305")])) == 3


def seeded(make, seed=0):
    torch.manual_seed(seed)
    return make()


def relu(depth=3):
    return mlp(depth, nn.ReLU)


FAULTY = {
    "one huge step": (relu, sgd(0.1), {"first_rate": 1000.0}),
    "one long step": (relu, sgd(0.1), {"first_rate": 100.0}),
    "adam with long steps": (relu, adam(0.3), {}),
    "sgd with long steps": (relu, sgd(10.0), {}),
    "biases of -10": (lambda: with_biases(relu(), -10.0), adam(1e-2), {}),
    "biases of -10 in the first layer": (lambda: with_biases(relu(), -10.0, layers=1), sgd(0.1), {}),
    "biases of -10 in most units": (lambda: with_biases(relu(), -10.0, layers=1, share=0.9), sgd(0.1), {}),
    "relu6": (lambda: with_biases(mlp(3, nn.ReLU6), -10.0), adam(1e-2), {}),
}


@pytest.mark.parametrize(("make", "optimizer", "more"), FAULTY.values(), ids=FAULTY)
def test_fires_on_a_net_whose_units_die(make, optimizer, more):
    report, made = fit(seeded(make), optimizer, **more)
    (found,) = verdict(made)
    assert found.margin > 3
    assert set(found.where) <= {"1", "3"}
    assert found.onset_step == 50  # of the first look
    assert found.evidence[0].value == made.series("activity", found.evidence[0].where).values[-1, 0]
    assert everything(report)["TW304"].summary == found.summary


def test_the_proposed_rate_kills_no_units_and_learns():
    make = adam(0.3)
    (found,) = verdict(fit(seeded(relu), make)[1])
    (lower,) = [r for r in found.remedies if r.id == "lower-learning-rate"]
    rate = float(lower.title.split()[-1])
    assert 1e-4 < rate < 1e-2
    _, cured = fit(seeded(relu), adam(rate), steps=250)
    assert verdict(cured) == []
    assert loss_course(cured).gained > RULE.learned


def test_the_proposed_weights_and_biases_bring_it_to_life():
    (found,) = verdict(fit(seeded(lambda: with_biases(relu(), -10.0)), adam(3e-3))[1])
    fresh = seeded(lambda: with_biases(relu(), -10.0))
    exec({r.id: r.how for r in found.remedies}["reinitialise"], {"torch": torch, "model": fresh})
    _, cured = fit(fresh, adam(3e-3))
    assert verdict(cured) == []
    assert loss_course(cured).gained > RULE.learned


def test_a_relu_that_leaks_comes_back():
    (found,) = verdict(fit(seeded(lambda: with_biases(relu(), -1.0)), adam(1e-2))[1])
    fresh = seeded(lambda: with_biases(relu(), -1.0))
    exec({r.id: r.how for r in found.remedies}["leaky-relu"], {"nn": nn, "model": fresh})
    report, cured = fit(fresh, adam(1e-2), steps=200)
    assert "TW304" not in everything(report)
    assert loss_course(cured).gained > RULE.learned


HEALTHY = {
    "relu": (relu, adam(3e-3)),
    "relu, sgd": (relu, sgd(0.1, momentum=0.9)),
    "deep": (lambda: relu(6), adam(2e-3)),
    "relu6": (lambda: mlp(3, nn.ReLU6), adam(3e-3)),
    "batch norm": (lambda: mlp(4, nn.ReLU, nn.BatchNorm1d), adam(3e-3)),
    "half of the units are dead": (lambda: with_biases(relu(), -10.0, share=0.5), adam(1e-2)),
    "most units are dead, and it learns": (lambda: with_biases(relu(), -10.0, share=0.8), adam(1e-2)),
    "tanh": (lambda: mlp(3, nn.Tanh), adam(3e-3)),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("make", "optimizer"), HEALTHY.values(), ids=HEALTHY)
def test_silent_on_a_net_that_learns(make, optimizer, seed):
    report, _ = fit(seeded(make, seed), optimizer, steps=150, seed=seed)
    assert "TW304" not in {*everything(report), *report.not_checked}


@pytest.mark.parametrize(("share", "dead"), [(0.5, 0.5), (0.8, 0.7)])
def test_those_nets_do_have_dead_units(share, dead):
    _, made = fit(seeded(lambda: with_biases(relu(), -10.0, share=share)), adam(1e-2), steps=60)
    assert made.series("activity", "1:relu").values[-1, 0] >= dead


def test_silent_on_usual_units_that_are_stopped_early():
    report, made = fit(seeded(relu), sgd(0.01), steps=40)
    assert loss_course(made).gained < 0.1
    assert "TW304" not in {*everything(report), *report.not_checked}


def test_without_a_probe_it_says_that_nothing_was_measured():
    report, _ = fit(seeded(lambda: mlp(3, nn.GELU)), adam(3e-3), steps=40)
    assert report.not_checked["TW304"] == "no probe saw activation functions"


@pytest.mark.parametrize(("steps", "judged"), [(8, False), (60, True)])
def test_small_batches_are_judged_together_where_there_are_enough(steps, judged):
    report, _ = fit(seeded(lambda: with_biases(relu(), -10.0)), adam(3e-3), steps=steps, batch=4)
    assert ("samples were held" not in report.not_checked.get("TW304", "")) is judged
    assert ("TW304" in {x.code for d in report.diagnoses for x in d.walk()}) is judged


CHAINS = {
    "the learning rate is at fault": (relu, sgd(10.0), "TW601"),
    "the first step is at fault": (relu, adam(0.3), "TW601"),
    "the initialisation is at fault": (lambda: times(relu(5), 8.0), sgd(0.1), "TW309"),
}


@pytest.mark.parametrize(("make", "optimizer", "cause"), CHAINS.values(), ids=CHAINS)
def test_a_report_nests_it_under_its_cause(make, optimizer, cause):
    _, made = fit(seeded(make), optimizer)
    assert len(verdict(made)) == 1
    (root,) = judge(made, Settings(select=("TW304", cause), strict=True)).diagnoses
    assert [d.code for d in root.walk()] == [cause, "TW304"]


def test_a_report_nests_its_effects_under_it():
    _, made = fit(seeded(lambda: with_biases(relu(), -10.0, layers=1, share=0.9)), sgd(0.1))
    (root,) = judge(made, Settings(select=("TW304", "TW602"), strict=True)).diagnoses
    assert [d.code for d in root.walk()] == ["TW304", "TW602"]


def test_units_of_no_module_are_told_by_their_function():
    (found,) = verdict(probed(site(dead=0.9, module="")))
    assert found.where == ("model:relu",)
