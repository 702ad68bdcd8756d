import numpy as np
import pytest
import torch
from begun_copies import CHANGES, with_copies
from lively import (
    CHANCE,
    STEPS,
    adam,
    ending,
    everything,
    fit,
    linears,
    probed,
    sgd,
    site,
    times,
    with_biases,
)
from synthetic_gradients import mlp
from torch import nn

from trainwatch.config import Settings
from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.engine import judge, nest
from trainwatch.record import RunRecord
from trainwatch.rules.depth_remedies import rectified
from trainwatch.rules.tw305_saturated_activations import SaturatedActivations
from trainwatch.symptoms.losses import loss_course

RULE = SaturatedActivations()


def verdict(made, **thresholds):
    return list(SaturatedActivations(**thresholds).check(made))


def hidden(flat=0.95, function="tanh", **more):
    return site(flat=flat, function=function, **more)


@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
@pytest.mark.parametrize("flat", [0.91, 0.95, 1.0])
@pytest.mark.parametrize("gained", [0.0, 0.6, -1.0])
def test_fires(flat, gained, function):
    (found,) = verdict(probed(hidden(flat, function), losses=ending(gained)))
    assert found.severity == Severity.WARNING
    assert found.margin > 0
    assert found.where == ("1",)
    assert found.evidence[0].value == pytest.approx(flat)
    assert found.evidence[0].threshold == RULE.flat
    assert found.evidence[2].value == pytest.approx(gained, abs=0.02)
    assert found.evidence[2].threshold == RULE.learned


def test_the_message_says_how_many_where_and_what_came_of_it():
    sites = [hidden(0.90625 + 0.015625 * i, module=str(i)) for i in range(6)]
    (found,) = verdict(probed(*sites))
    assert found.summary == (
        "values where the activation is flat: 91% in '0:tanh', 92% in '1:tanh', 94% in '2:tanh', 95% in '3:tanh' and "
        "2 more; the loss went 2.31 at the start, 2.28 at best, 2.29 at the end (2.3 is chance)"
    )
    assert found.where == tuple("012345")
    assert (found.evidence[0].where, found.evidence[0].value) == ("5:tanh", 0.984375)
    assert found.evidence[0].note == "200 entries of 64 units"
    (four,) = verdict(probed(*sites[:4]))
    assert "more" not in four.summary


SILENT = {
    "fewer are flat": probed(hidden(0.88)),
    "the net learns": probed(hidden(1.0), losses=ending(0.8)),
    "it came back to where it has a slope": probed(hidden(0.3, first=1.0)),
    "units that are dead": probed(hidden(0.0, dead=1.0)),
    "a relu": probed(hidden(1.0, "relu")),
    "another function": probed(hidden(1.0, "softsign")),
    "no activation": probed(),
}


@pytest.mark.parametrize("made", SILENT.values(), ids=SILENT)
def test_silent(made):
    assert verdict(made) == []


def test_gates_are_left_to_the_rule_on_them():
    made = probed(
        hidden(1.0, "sigmoid", module="act"), hidden(1.0, "sigmoid", module="cell"), hidden(1.0, module="cell")
    )
    assert len(verdict(made)) == 1
    fact = {"module": "act", "kind": "product", "function": "sigmoid", "layer": "", "order": 0}
    made.set_fact("gates", {
        "act:sigmoid": fact | {"activations": ["act:sigmoid"]},
        "cell:update_l0": {"module": "cell", "kind": "gru", "activations": [], "order": 1},
    })  # fmt: skip
    (found,) = verdict(made)
    assert found.where == ("cell",)
    assert found.evidence[0].where == "cell:tanh"


def test_where_some_layers_have_samples_enough_those_are_judged():
    (found,) = verdict(probed(hidden(1.0, entries=49, module="few"), hidden(entries=50, module="many")))
    assert found.where == ("many",)


def test_the_margin_is_in_standard_errors_of_the_nearer_threshold():
    (found,) = verdict(probed(hidden(0.95, entries=400)))
    assert found.margin == pytest.approx(0.05 / (0.95 * 0.05 / 400) ** 0.5, rel=1e-4)
    (of_few,) = verdict(probed(hidden(0.95, entries=100)))
    assert of_few.margin == pytest.approx(found.margin / 2)
    (whole,) = verdict(probed(hidden(1.0, entries=100)))
    assert whole.margin == pytest.approx(0.1 / (0.01 / 100) ** 0.5)  # as if one in a hundred were not
    (near,) = verdict(probed(hidden(1.0, entries=10**6), losses=ending(0.7)))
    error = 1.2533 * 0.03 / (STEPS / 5) ** 0.5 / CHANCE
    assert near.margin == pytest.approx((RULE.learned - 0.7) / error, rel=0.35)
    (exact,) = verdict(probed(hidden(1.0, entries=10**9), losses=np.full(STEPS, CHANCE)))
    assert exact.margin == 1e3


@pytest.mark.parametrize(("first", "onset"), [(None, 100), (0.91, 50), (0.89, 100), (0.0, 100)])
def test_the_onset_is_the_first_probe_where_it_was_saturated_then(first, onset):
    (found,) = verdict(probed(hidden(first=first)))
    assert found.onset_step == onset


def test_a_function_that_the_model_itself_calls_is_named_by_its_site():
    assert verdict(probed(hidden(module="")))[0].where == ("model:tanh",)


def cures(made):
    (found,) = verdict(made)
    return {r.id: r for r in found.remedies}


def test_the_modules_that_are_flat_are_to_be_replaced():
    some = [hidden(0.95, module="1"), hidden(0.2, module="3"), hidden(0.97, "sigmoid", module="5")]
    shown = cures(probed(*some))["relu-family"]
    assert shown.title.startswith("Replace Tanh and Sigmoid between")
    assert shown.why.startswith("97% of the values lie where the slope is next to zero.")
    assert "for name in ['1', '5']:" in shown.how
    inside = [{"name": "1", "type": "LSTM", "order": 0}, {"name": "5", "type": "Sigmoid", "order": 5}]
    assert "for name in ['5']:" in cures(probed(*some, modules=inside))["relu-family"].how
    assert "relu-family" not in cures(probed(*some, modules=[]))  # called as functions: nothing to swap


def test_other_weights_are_offered_with_the_numbers_of_the_first_layer():
    made = probed(hidden(first=0.95), weights=(20.0, 1.0))
    shown = cures(made)["reinitialise"]
    assert shown.why.startswith(f"0 begins with a deviation of {20 / 32**0.5:.3g}; for 32 inputs {32**-0.5:.3g} keeps")
    assert list(cures(made)) == ["relu-family", "reinitialise"]
    last, first = made.facts["parameters"]
    made.set_fact("parameters", [last | {"order": 9}, first | {"shape": [8, 4, 3, 3]}])
    assert "2 begins with" in (why := cures(made)["reinitialise"].why)
    assert f"for 36 inputs {1 / 6:.3g} keeps" in why
    made.set_fact("parameters", [{k: v for k, v in last.items() if k != "std"}, first | {"kind": "bias"}])
    assert "reinitialise" not in cures(made)


def effect(code, onset=20):
    return Diagnosis(code, "another", Severity.ERROR, "fault", onset_step=onset, margin=5.0, confidence=0.99)


@pytest.mark.parametrize("code", ["TW204", "TW205", "TW208", "TW301", "TW602"])
def test_what_it_leads_to_is_nested_under_it(code):
    (found,) = verdict(probed(hidden()))
    (root,) = nest([effect(code), found])
    assert [d.code for d in root.walk()] == ["TW305", code]


def test_other_faults_stand_beside_it():
    (found,) = verdict(probed(hidden()))
    assert len(nest([found, effect("TW101"), effect("TW304")])) == 3


def seeded(make, seed=0):
    torch.manual_seed(seed)
    return make()


def tanh(depth=3):
    return mlp(depth, nn.Tanh)


def functional(model):
    """The same net with functions in place of modules."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(linears(model))

        def forward(self, x):
            for layer in self.layers[:-1]:
                x = layer(x).tanh()
            return self.layers[-1](x)

    return Net()


FAULTY = {
    "weights 20 times too large": (lambda: times(tanh(), 20.0), sgd(0.1)),
    "weights 30 times too large": (lambda: times(tanh(), 30.0), adam(1e-3)),
    "weights 100 times too large": (lambda: times(tanh(4), 100.0), adam(1e-3)),
    "sigmoid": (lambda: times(mlp(3, nn.Sigmoid), 100.0), adam(1e-3)),
    "biases of 10": (lambda: with_biases(tanh(), 10.0), sgd(0.1)),
    "biases of -10 in the first layer": (lambda: with_biases(mlp(3, nn.Sigmoid), -10.0, layers=1), sgd(0.1)),
    "long steps": (tanh, adam(1.0)),
}


@pytest.mark.parametrize(("make", "optimizer"), FAULTY.values(), ids=FAULTY)
def test_fires_on_a_net_that_is_saturated(make, optimizer):
    report, made = fit(seeded(make), optimizer)
    (found,) = verdict(made)
    assert found.margin > 1
    assert found.onset_step == 50  # of the first look
    assert found.evidence[0].value == made.series("activity", found.evidence[0].where).values[-1, 2]
    assert everything(report)["TW305"].summary == found.summary


def test_fires_where_functions_are_called():
    (found,) = verdict(fit(functional(seeded(lambda: times(tanh(), 30.0))), adam(1e-3))[1])
    assert all(place.startswith("model:tanh") for place in found.where)
    assert [r.id for r in found.remedies] == ["reinitialise"]


def test_the_proposed_weights_cure_it():
    (found,) = verdict(fit(seeded(lambda: times(tanh(), 30.0)), sgd(0.1))[1])
    fresh = seeded(lambda: times(tanh(), 30.0))
    exec({r.id: r.how for r in found.remedies}["reinitialise"], {"torch": torch, "model": fresh})
    _, cured = fit(fresh, sgd(0.1), steps=150)
    assert verdict(cured) == []
    assert max(cured.series("activity", s).values[-1, 2] for s in ("1:tanh", "3:tanh")) < 0.3
    assert loss_course(cured).gained > RULE.learned


def test_a_function_that_has_a_slope_cures_it():
    (found,) = verdict(fit(seeded(lambda: with_biases(tanh(), 4.0)), sgd(0.1))[1])
    fresh = seeded(lambda: with_biases(tanh(), 4.0))
    exec({r.id: r.how for r in found.remedies}["relu-family"], {"nn": nn, "model": fresh})
    _, cured = fit(fresh, adam(1e-2), steps=200)
    assert verdict(cured) == []
    assert loss_course(cured).gained > RULE.learned


def gain(layer):
    return float(layer.weight.detach().std()) * layer.in_features**0.5


def test_rectified_layers_begin_as_such_units_ask():
    made = fit(seeded(lambda: with_biases(tanh(), 4.0)), sgd(0.1))[1]
    (found,) = verdict(made)
    fresh = seeded(lambda: with_biases(tanh(), 4.0))
    exec({r.id: r.how for r in found.remedies}["relu-family"], {"nn": nn, "model": fresh})
    *hidden, last = [m for m in fresh if isinstance(m, nn.Linear)]
    assert [bool(layer.bias.any()) for layer in (*hidden, last)] == [False] * len(hidden) + [True]
    assert [gain(layer) for layer in hidden] == pytest.approx([2**0.5] * len(hidden), rel=0.15)
    assert gain(last) < 0.7


@pytest.mark.parametrize(
    ("rms", "trained", "drawn"), [(2.9, 0, True), (3.1, 0, False), (None, 0, True), (2.9, 2, False)]
)
def test_weights_stay_that_were_learned_or_meet_large_inputs(rms, trained, drawn):
    made = fit(seeded(lambda: with_biases(tanh(), 4.0)), sgd(0.1))[1]
    record = RunRecord()
    for name, fact in made.facts.items():
        record.set_fact(name, fact)
    record.set_fact("start_weights", {"judged": 3, "trained": trained})
    if rms is not None:
        record.append("input_stats", "train", 0, np.array([0, 0, 0, rms, -1, 1, 0, rms, rms]))
    assert ("kaiming_normal_" in rectified(record, "Tanh", ["1"], "").how) is drawn


HEALTHY = {
    "tanh": (tanh, adam(3e-3)),
    "tanh, deep": (lambda: tanh(6), adam(2e-3)),
    "tanh, sgd": (tanh, sgd(0.1, momentum=0.9)),
    "sigmoid": (lambda: mlp(2, nn.Sigmoid), adam(1e-2)),
    "sigmoid, batch norm": (lambda: mlp(4, nn.Sigmoid, nn.BatchNorm1d), adam(1e-2)),
    "relu": (lambda: mlp(3, nn.ReLU), adam(3e-3)),
    "a saturated first layer, and it learns": (lambda: times(mlp(2, nn.Tanh), 60.0, layers=1), adam(1e-2)),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("make", "optimizer"), HEALTHY.values(), ids=HEALTHY)
def test_silent_on_a_net_that_learns(make, optimizer, seed):
    report, _ = fit(seeded(make, seed), optimizer, steps=150, seed=seed)
    assert "TW305" not in {*everything(report), *report.not_checked}


def test_such_a_first_layer_is_saturated():
    _, made = fit(seeded(HEALTHY["a saturated first layer, and it learns"][0]), adam(1e-2), steps=60)
    assert made.series("activity", "1:tanh").values[-1, 2] > RULE.flat


def test_what_the_loss_is_given_may_be_as_sure_as_it_likes():
    """A net whose outputs are all 0 or 1 and that learns nothing: its last sigmoid is no hidden one."""
    model = seeded(lambda: nn.Sequential(*mlp(3, nn.ReLU), nn.Sigmoid()))
    nn.init.constant_(linears(model)[-1].bias, 50.0)
    report, made = fit(model, sgd(0.01), steps=60)
    assert loss_course(made).gained < 0.1
    assert "TW305" not in {*everything(report), *report.not_checked}


@pytest.mark.parametrize(("steps", "judged"), [(8, False), (60, True)])
def test_small_batches_are_judged_together_where_there_are_enough(steps, judged):
    report, _ = fit(seeded(lambda: times(tanh(), 30.0)), adam(1e-3), steps=steps, batch=4)
    assert ("samples were held" in report.not_checked.get("TW305", "")) is not judged


CHAINS = {
    "the learning rate is at fault": (tanh, adam(1.0), "TW601"),
    "the initialisation is at fault": (lambda: times(tanh(), 30.0), sgd(0.1), "TW309"),
}


@pytest.mark.parametrize(("make", "optimizer", "cause"), CHAINS.values(), ids=CHAINS)
def test_a_report_nests_it_under_its_cause(make, optimizer, cause):
    _, made = fit(seeded(make), optimizer)
    assert len(verdict(made)) == 1
    (root,) = judge(made, Settings(select=("TW305", cause), strict=True)).diagnoses
    assert [d.code for d in root.walk()] == [cause, "TW305"]


@pytest.mark.parametrize(("flat", "gained"), [(0.55, 0.9), (0.55, 0.0), (0.95, 0.9)])
def test_half_of_the_values_are_enough_where_a_copy_without_that_leads(flat, gained):
    plain = probed(hidden(flat), losses=ending(gained))
    assert verdict(plain) == []
    (found,) = verdict(with_copies(plain, "rectified"))
    assert (found.evidence[0].value, found.evidence[0].threshold) == (pytest.approx(flat), RULE.half)
    assert "a copy with usual weights and ReLUs came to a validation loss of 0.4" in found.summary
    assert found.evidence[-1].value == pytest.approx(0.7)


@pytest.mark.parametrize("how", CHANGES.values(), ids=CHANGES)
def test_half_of_the_values_say_nothing_where_no_copy_leads(how):
    assert verdict(with_copies(probed(hidden(0.6), losses=ending(0.9)), "rectified", **how)) == []


def test_fewer_than_half_say_nothing_whatever_leads():
    assert verdict(with_copies(probed(hidden(0.45), losses=ending(0.9)), "rectified")) == []


@pytest.mark.parametrize(("flat", "function", "asks"), [(0.55, "tanh", 1), (0.45, "tanh", 0), (0.9, "relu", 0)])
def test_copies_are_asked_for_where_half_of_the_values_are_flat(flat, function, asks):
    wishes = [w.kind for w in RULE.asks(probed(hidden(flat, function), losses=ending(0.9)))]
    assert wishes == ["activations", *["usual_start"] * asks]


@pytest.mark.parametrize(("other", "found"), [(0.42, 1), (0.52, 0)])
def test_the_lead_must_be_a_tenth_of_the_loss_of_a_guess(other, found):
    made = with_copies(probed(hidden(0.6), losses=ending(0.9)), "rectified", as_begun=0.7, other=other)
    assert len(verdict(made)) == found
