import numpy as np
import pytest
import torch
from gated import (
    PARAMETERS,
    Attending,
    Excited,
    Linears,
    Rows,
    attention,
    biased,
    gate,
    larger,
    probed,
    product,
)
from lively import STEPS, adam, ending, everything, fit, sgd
from torch import nn

from trainwatch.config import Settings
from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.engine import judge, nest
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw306_stuck_gates import StuckGates

RULE = StuckGates()


def verdict(made, **thresholds):
    return list(StuckGates(**thresholds).check(made))


def recurrent(share, kind="lstm", **more):
    """All gates of a recurrent layer, this share of whose entries is at either end."""
    names = {"lstm": ("input", "forget", "output"), "gru": ("reset", "update")}[kind]
    return [gate(kind=kind, function=name, low=share / 2, high=share / 2, **more) for name in names]


FAULTS = {
    "input": lambda share: gate(shut=share, low=0.0),
    "forget": lambda share: gate(shut=share, low=0.0, function="forget"),
    "output": lambda share: gate(shut=share, low=0.0, function="output"),
    "update": lambda share: gate(opened=share, low=0.0, high=0.0, function="update", kind="gru"),
    "sigmoid": lambda share: product(shut=share),
    "hard sigmoid": lambda share: product("hardsigmoid", shut=share),
    "glu": lambda share: product("glu", shut=share),
}


@pytest.mark.parametrize("make", FAULTS.values(), ids=FAULTS)
def test_fires_where_most_units_are_stuck_at_the_end_that_blocks(make):
    for share in (0.72, 1.0):
        (found,) = verdict(probed(make(share)))
        assert found.severity == Severity.WARNING
        assert found.margin > 0
        shown = found.evidence[0]
        assert (shown.value, shown.threshold, shown.step) == (pytest.approx(share), RULE.many, 100)
    assert verdict(probed(make(0.68))) == []


@pytest.mark.parametrize(
    ("function", "kind", "end"),
    [("input", "lstm", "low"), ("output", "lstm", "low"), ("forget", "lstm", "low"), ("update", "gru", "high")],
)
def test_most_entries_at_the_end_that_blocks_are_enough_where_little_is_learned(function, kind, end):
    """Though no unit is always there."""

    def made(share, gained=0.2, at=end, function=function):
        entries = {"low": 0.0, "high": 0.0} | {at: share}
        return probed(gate(kind=kind, function=function, **entries), losses=ending(gained))

    (found,) = verdict(made(0.72))
    assert found.evidence[0].value == pytest.approx(0.72)
    assert found.evidence[2].threshold == RULE.little
    assert found.remedies[0].id == "forget-gate-bias"
    assert verdict(made(0.68)) == []
    assert verdict(made(0.72, gained=0.45)) == []


def test_a_gate_whose_units_are_stuck_is_told_once_and_not_by_its_entries_too():
    (found,) = verdict(probed(gate(shut=1.0)))
    assert found.summary.startswith("100% of the units of 'body:input_l0' always near 0; the loss went")


def test_an_update_gate_that_takes_in_all_that_is_new_blocks_nothing():
    half = [gate(kind="gru", function="reset", low=0.5), gate(kind="gru", function="update", low=0.9)]
    assert verdict(probed(*half)) == []


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_fires_where_all_gates_of_a_recurrent_layer_are_flat(kind):
    (found,) = verdict(probed(*recurrent(0.72, kind)))
    assert found.evidence[0].value == pytest.approx(0.72)
    assert "of the entries of" in found.summary
    assert verdict(probed(*recurrent(0.68, kind))) == []


def test_gates_of_a_recurrent_layer_that_are_all_open_have_no_slope_either():
    """A product that is just open is a plain layer."""
    wide = [gate(opened=0.9, function=name) for name in ("input", "forget", "output")]
    (found,) = verdict(probed(*wide))
    assert found.summary.startswith("90% of the entries of 'body:input_l0' near 0 or 1")
    assert verdict(probed(product(opened=1.0, high=1.0))) == []


def test_a_product_is_flat_at_both_ends():
    assert len(verdict(probed(product(low=0.5, high=0.41)))) == 1
    assert verdict(probed(product(low=0.5, high=0.39))) == []
    assert verdict(probed(product(low=0.02, high=0.97, opened=0.9))) == []


def test_fires_on_sharp_attention():
    (found,) = verdict(probed(attention(0.96)))
    assert found.where == ("attn",)
    assert found.evidence[0].value == pytest.approx(0.96)
    assert verdict(probed(attention(0.94))) == []


OTHERS = [gate(function="output"), gate(function="reset", kind="gru")]  # that have a slope
SILENT = {
    "forget gates that remember": [gate(opened=1.0, function="forget"), OTHERS[0]],
    "input gates that are open": [gate(opened=1.0), OTHERS[0]],
    "output gates that are open": [gate(), gate(opened=1.0, function="output")],
    "update gates that take in": [OTHERS[1], gate(shut=1.0, function="update", kind="gru")],
    "reset gates": [gate(shut=1.0, function="reset", kind="gru"), gate(function="update", kind="gru")],
    "reset gates that are open": [gate(opened=1.0, function="reset", kind="gru"), gate(function="update", kind="gru")],
    "gates of a product that are open": [product(opened=1.0, high=1.0)],
    "gates that open now and then": [product(low=0.85, high=0.0)],
    "it came back": [gate(shut=0.2, first=1.0), OTHERS[0]],
    "attention that is sharp in places": [attention(0.9, least=0.5)],
}


@pytest.mark.parametrize("sites", SILENT.values(), ids=SILENT)
def test_silent(sites):
    assert verdict(probed(*sites)) == []


def test_one_gate_that_has_a_slope_lets_a_recurrent_layer_turn():
    some = recurrent(0.9)
    some[2] = gate(function="output", low=0.2, high=0.2)
    assert verdict(probed(*some)) == []


def test_layers_of_one_module_are_told_apart():
    (found,) = verdict(probed(*recurrent(0.1, place="_l0"), *recurrent(0.9, place="_l1")))
    assert found.evidence[0].where.endswith("_l1")


@pytest.mark.parametrize("sites", [[gate(shut=1.0)], [product(shut=1.0)], [attention()]])
def test_a_net_that_learns_is_not_faulty(sites):
    (found,) = verdict(probed(*sites, losses=ending(RULE.learned - 0.03)))
    assert found.evidence[2].threshold == RULE.learned
    assert verdict(probed(*sites, losses=ending(RULE.learned + 0.03))) == []


@pytest.mark.parametrize("sites", [recurrent(1.0), [product(low=0.5, high=0.5)]])
def test_gates_at_either_end_count_only_where_little_is_learned(sites):
    (found,) = verdict(probed(*sites, losses=ending(RULE.little - 0.03)))
    assert found.evidence[2].threshold == RULE.little
    assert 0 < found.margin < 1e3
    assert verdict(probed(*sites, losses=ending(RULE.little + 0.03))) == []


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter(scale):
    falls = np.linspace(1.0, 0.5, STEPS)
    (found,) = verdict(probed(gate(shut=1.0), losses=scale * falls, classes=None))
    (plain,) = verdict(probed(gate(shut=1.0), losses=falls, classes=None))
    assert found.margin == pytest.approx(plain.margin)


def test_gates_and_attention_are_two_findings():
    found = verdict(probed(gate(shut=1.0), attention()))
    assert [d.where for d in found] == [("body",), ("attn",)]


def test_the_message_says_how_many_where_and_what_came_of_it():
    sites = [product(shut=0.75 + 0.0625 * i, module=f"act{i}") for i in range(5)]
    (found,) = verdict(probed(*sites))
    assert found.summary == (
        "75% of the units of 'act0:sigmoid' always near 0, 81% of the units of 'act1:sigmoid' always near 0, "
        "88% of the units of 'act2:sigmoid' always near 0 and 2 more; "
        "the loss went 2.31 at the start, 2.28 at best, 2.29 at the end (2.3 is chance)"
    )
    assert found.where == tuple(f"act{i}" for i in range(5))
    assert (found.evidence[0].where, found.evidence[0].value) == ("act4:sigmoid", 1.0)
    assert found.evidence[0].note == "64 units, 200 entries of each, 0.5 on average"
    assert verdict(probed(gate(shut=1.0, module="")))[0].where == ("model:input_l0",)


@pytest.mark.parametrize(("first", "onset"), [(None, 100), (0.9, 50), (0.71, 50), (0.69, 100), (0.0, 100)])
def test_the_onset_is_the_first_probe_where_it_was_so_then(first, onset):
    (found,) = verdict(probed(gate(shut=1.0, first=first)))
    assert found.onset_step == onset
    assert found.evidence[1].value == pytest.approx(1.0 if first is None else first)


def test_the_onset_of_the_other_kinds():
    some = recurrent(0.9, first=0.0)
    for site in some:
        site["rows"][0] = (0.1, 0.1, 0.4, 0.4, 0.5, 200, 64)
    (flat,) = verdict(probed(*some))
    assert flat.onset_step == 50
    assert flat.evidence[1].value == pytest.approx(0.8)
    (sharp,) = verdict(probed(attention(first=0.96)))
    assert sharp.onset_step == 50
    (later,) = verdict(probed(attention(first=0.9)))
    assert later.onset_step == 100
    update = gate(opened=1.0, function="update", kind="gru", first=0.9)
    update["rows"][0] = (0.9, 0.1, 0.9, 0.1, 0.1, 200, 64)
    (turned,) = verdict(probed(update))
    assert turned.onset_step == 100, "they were shut, not open"
    assert turned.evidence[1].value == pytest.approx(0.1)


def test_the_margin_is_in_standard_errors_of_the_nearer_threshold():
    (found,) = verdict(probed(gate(shut=0.75, units=64)))
    assert found.margin == pytest.approx(0.05 / (0.75 * 0.25 / 64) ** 0.5, rel=1e-4)
    (whole,) = verdict(probed(gate(shut=1.0, units=100)))
    assert whole.margin == pytest.approx(0.3 / (0.01 / 100) ** 0.5)  # as if one in a hundred were not
    (exact,) = verdict(probed(gate(shut=1.0, units=10**6), losses=np.full(STEPS, np.log(10))))
    assert exact.margin == 1e3


# ------------------------------------------------------------------ abstaining


def test_without_a_loss_it_abstains():
    with pytest.raises(NotChecked, match="no training loss"):
        verdict(RunRecord())


def test_where_no_probe_looked_it_says_why():
    made = probed()
    del made.facts["gates"]
    with pytest.raises(NotChecked, match="not measured: no probe looked"):
        verdict(made)
    made.set_fact("switched_off", {"gates": "it holds a socket"})
    with pytest.raises(NotChecked, match="not measured: it holds a socket"):
        verdict(made)


def test_few_samples_are_not_judged():
    for few, enough in ((gate(shut=1.0, entries=49), gate(shut=1.0, entries=50)),
                        (attention(rows=199), attention(rows=200))):  # fmt: skip
        with pytest.raises(NotChecked, match="too few samples were held; 50 are needed"):
            verdict(probed(few))
        assert len(verdict(probed(enough))) == 1
    (found,) = verdict(probed(gate(shut=1.0, entries=49), product(shut=1.0)))
    assert found.where == ("act",)


def test_a_module_that_cannot_be_computed_again_is_named():
    own = {"own": {"module": "own", "kind": "unknown", "reason": "Own has a forward pass of its own", "order": 9}}
    made = probed()
    made.set_fact("gates", own)
    with pytest.raises(NotChecked, match="Own has a forward pass of its own"):
        verdict(made)
    beside = probed(gate(shut=1.0))
    beside.set_fact("gates", beside.facts["gates"] | own)
    assert len(verdict(beside)) == 1


def test_a_net_without_gates_is_not_faulty_and_not_looked_at_again():
    assert verdict(probed()) == []
    assert list(RULE.asks(probed())) == []


@pytest.mark.parametrize(("gained", "priority"), [(0.0, 0.9), (0.72, 0.9), (0.78, 0.15)])
def test_it_asks_for_the_probe_the_sooner_the_less_was_learned(gained, priority):
    (wish,) = RULE.asks(probed(gate(), losses=ending(gained)))
    assert (wish.kind, wish.where, wish.priority) == ("gates", (), priority)
    assert ("the loss is not low" in wish.reason) is (priority == 0.9)


# ------------------------------------------------------------------ remedies


def cures(*sites, **more):
    (found,) = verdict(probed(*sites, **more))
    return {r.id: r for r in found.remedies}


@pytest.mark.parametrize(
    ("function", "chunk", "value"),
    [("input", "[0:64]", 0.0), ("forget", "[64:128]", 0.5), ("output", "[192:256]", 0.0)],
)
def test_a_bias_is_set_in_the_chunk_of_the_gate(function, chunk, value):
    shown = cures(gate(shut=1.0, function=function, mean=0.0078125))["forget-gate-bias"]
    assert f"parameters[name]{chunk} = {value}" in shown.how
    assert "for name in ['body.bias_ih_l0', 'body.bias_hh_l0']:" in shown.how
    assert shown.title == f"Begin with a bias of {2 * value} in the {function} gates of 'body'"
    assert shown.why.startswith("Their mean is 0.0078:")


def test_biases_that_are_not_there_cannot_be_set():
    bare = [p for p in PARAMETERS if p["kind"] != "bias"]
    assert "forget-gate-bias" not in cures(gate(shut=1.0), parameters=bare)
    assert "forget-gate-bias" not in cures(gate(shut=1.0, place="_l1"))
    assert "forget-gate-bias" not in cures(product(shut=1.0))


def test_all_gates_that_are_stuck_are_begun_anew_together():
    """One that stays shut lets nothing through to the others."""
    both = cures(product(shut=1.0, layer="up"), product(shut=0.9, module="next", layer="down"))["initialisation"]
    assert "for name in ['up', 'down']:" in both.how


def test_weights_are_scaled_where_they_are_large_or_the_gates_flat():
    shown = cures(gate(shut=1.0))["initialisation"]
    assert shown.why.endswith("its weights began with a gain of 16 (deviation times the root of the fan-in).")
    assert "for name in ['body']:" in shown.how
    small = [p | {"std": 0.1} for p in PARAMETERS]
    assert "initialisation" not in cures(gate(shut=1.0), parameters=small)
    assert list(cures(*recurrent(1.0), parameters=small)) == ["initialisation", "layer-norm"]


def test_a_norm_goes_where_the_gates_are_fed_from():
    assert "for name, width in [('embed', 16)]:" in cures(*recurrent(1.0))["layer-norm"].how
    assert "layer-norm" not in cures(*recurrent(1.0), parameters=PARAMETERS[1:])
    assert "layer-norm" not in cures(gate(shut=1.0))
    shown = cures(product(shut=1.0, layer="up"))
    assert list(shown) == ["initialisation", "layer-norm"]
    assert "for name, width in [('up', 64)]:" in shown["layer-norm"].how
    assert "nn.LayerNorm(width)" in shown["layer-norm"].how
    assert cures(product(shut=1.0)) == {}


def test_of_attention_queries_and_keys_are_normalised():
    shown = cures(attention(0.96))
    assert list(shown) == ["qk-norm", "initialisation"]
    assert shown["qk-norm"].why.startswith("96% of the rows")
    assert "for name in ['attn']:" in shown["initialisation"].how
    assert "began with a gain of 2.83" in shown["initialisation"].why


# ------------------------------------------------------------------ beside other findings


def other(code):
    return Diagnosis(code, "another", Severity.ERROR, "fault", onset_step=20, margin=5.0, confidence=0.99)


@pytest.mark.parametrize("code", ["TW107", "TW108", "TW302", "TW309", "TW601", "TW604", "TW703", "TW704"])
def test_it_is_nested_under_what_leads_to_it(code):
    (found,) = verdict(probed(gate(shut=1.0)))
    (root,) = nest([found, other(code)])
    assert [d.code for d in root.walk()] == [code, "TW306"]


@pytest.mark.parametrize("code", ["TW204", "TW205", "TW208", "TW301", "TW305", "TW602"])
def test_what_it_leads_to_is_nested_under_it(code):
    (found,) = verdict(probed(gate(shut=1.0)))
    (root,) = nest([other(code), found])
    assert [d.code for d in root.walk()] == ["TW306", code]


# ------------------------------------------------------------------ real trainings


def seeded(make, seed=0):
    torch.manual_seed(seed)
    return make()


FAULTY = {
    "input gates shut": (lambda: biased(Rows(nn.LSTM), "input", -20.0), adam(1e-2), "body:input_l0"),
    "input gates shut, mildly": (lambda: biased(Rows(nn.LSTM), "input", -10.0), sgd(0.1), "body:input_l0"),
    "output gates shut": (lambda: biased(Rows(nn.LSTM), "output", -20.0), adam(1e-2), "body:output_l0"),
    "update gates open": (lambda: biased(Rows(nn.GRU), "update", 30.0), adam(1e-2), "body:update_l0"),
    "update gates open, mildly": (lambda: biased(Rows(nn.GRU), "update", 10.0), sgd(0.1), "body:update_l0"),
    "lstm weights 60 times too large": (lambda: larger(Rows(nn.LSTM), 60.0), adam(1e-3), "body:"),
    "gru weights 60 times too large": (lambda: larger(Rows(nn.GRU), 60.0), adam(1e-3), "body:"),
    "excitation shut": (lambda: Excited(-30.0), adam(1e-2), "act:sigmoid"),
    "glu shut": (lambda: Linears(-10.0), adam(1e-2), "layers."),
    "logits far too large": (lambda: Attending(1000.0, layers=1), sgd(0.05), "body.layers.0.self_attn:attention"),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("make", "optimizer", "place"), FAULTY.values(), ids=FAULTY)
def test_fires_on_real_trainings(make, optimizer, place, seed):
    report, made = fit(seeded(make, seed), optimizer, seed=seed)
    (found,) = verdict(made)
    assert found.evidence[0].where.startswith(place)
    assert found.margin > 2
    assert found.remedies
    assert "TW306" in everything(report)


def test_forget_gates_that_are_shut_are_found_where_the_loss_is_poor():
    _, made = fit(seeded(lambda: biased(Rows(nn.LSTM), "forget", -30.0)), adam(1e-3), steps=60)
    (found,) = verdict(made)
    assert found.evidence[0].where == "body:forget_l0"


HEALTHY = {
    "lstm": (lambda: Rows(nn.LSTM), adam(1e-2)),
    "gru": (lambda: Rows(nn.GRU), adam(1e-2)),
    "forget gates that remember": (lambda: biased(Rows(nn.LSTM), "forget", 5.0), adam(1e-2)),
    "excitation": (Excited, adam(1e-2)),
    "excitation left open": (lambda: Excited(10.0), adam(1e-2)),
    "glu": (Linears, adam(1e-2)),
    "transformer": (Attending, adam(3e-3)),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("make", "optimizer"), HEALTHY.values(), ids=HEALTHY)
def test_silent_on_real_trainings_long_and_short(make, optimizer, seed):
    for steps in (25, 100):  # so early the loss is poor, and no gate is stuck
        report, made = fit(seeded(make, seed), optimizer, seed=seed, steps=steps)
        assert made.facts["gates"]
        assert verdict(made) == []
        assert "TW306" not in {*everything(report), *report.not_checked}


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_proposed_bias_cures_it(kind):
    make = (lambda: biased(Rows(nn.LSTM), "input", -20.0)) if kind == "lstm" else (
        lambda: biased(Rows(nn.GRU), "update", 30.0))  # fmt: skip
    _, made = fit(seeded(make), adam(1e-2))
    (found,) = verdict(made)
    fresh = seeded(make)
    exec({r.id: r for r in found.remedies}["forget-gate-bias"].how, {"model": fresh, "torch": torch})
    assert verdict(fit(fresh, adam(1e-2))[1]) == []


def test_the_proposed_weights_cure_it():
    make = lambda: larger(Rows(nn.LSTM), 60.0)  # noqa: E731
    (found,) = verdict(fit(seeded(make), adam(1e-2))[1])
    fresh = seeded(make)
    exec({r.id: r for r in found.remedies}["initialisation"].how, {"model": fresh, "nn": nn})
    assert verdict(fit(fresh, adam(1e-2))[1]) == []


@pytest.mark.parametrize(
    ("make", "optimizer", "cause"),
    [(lambda: larger(Rows(nn.LSTM), 60.0), adam(1e-3), "TW309"), (lambda: Rows(nn.LSTM), adam(1.0), "TW601")],
)
def test_a_report_nests_it_under_its_cause(make, optimizer, cause):
    _, made = fit(seeded(make), optimizer)
    (root,) = judge(made, Settings(select=("TW306", cause), strict=True)).diagnoses
    assert [d.code for d in root.walk()] == [cause, "TW306"]
