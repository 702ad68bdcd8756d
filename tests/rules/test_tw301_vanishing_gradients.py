import numpy as np
import pytest
import torch
from begun_copies import CHANGES, with_copies
from lively import adam, everything, fit, times
from synthetic_gradients import chain, digits, make_record, mlp, parameter, train
from torch import nn

from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.record.series import Series
from trainwatch.rules import NotChecked
from trainwatch.rules.tw301_vanishing_gradients import VanishingGradients

STEPS, DEPTH = 200, 8
RNG = np.random.default_rng(0)
STUCK = 2.3 + 0.03 * RNG.normal(size=STEPS)
LEARNING_SLOWLY = np.linspace(2.3, 1.0, STEPS) + 0.03 * RNG.normal(size=STEPS)
LEARNING = 2.3 * np.exp(-np.arange(STEPS) / 50) + 0.03 * RNG.normal(size=STEPS)


def record(
    decades=6.0,
    losses=STUCK,
    *,
    depth=DEPTH,
    weights=None,
    late=None,
    when=slice(STEPS // 2, None),
    activation="Sigmoid",
    scale=1.0,
    **more,
):
    """A chain whose bias gradients fall by `decades` to the first layer, weights by `weights`, and `when` by `late`."""
    parameters, modules = chain(depth, activation=activation)
    steps = len(losses)
    bias = np.linspace(-decades, 0, depth) - 2
    weight = np.linspace(-(decades if weights is None else weights), 0, depth) - 2
    profile = np.repeat(np.stack([weight, bias], 1).reshape(1, -1), steps, 0)
    if late is not None:
        profile[when] = np.repeat(np.linspace(-late, 0, depth) - 2, 2)
    rms = scale * 10 ** (profile + 0.1 * np.random.default_rng(1).normal(size=profile.shape))
    return make_record(scale * np.asarray(losses), rms, parameters=parameters, modules=modules, **more)


def verdict(made, **thresholds):
    return list(VanishingGradients(**thresholds).check(made))


@pytest.mark.parametrize("decades", [2.8, 3.5, 6.0, 12.0, 30.0])
def test_fires(decades):
    (found,) = verdict(record(decades))
    assert found.severity == Severity.WARNING
    assert found.margin > 2
    assert found.onset_step == 0
    assert found.where[0] == "layers.0"
    assert "layers.14" not in found.where


@pytest.mark.parametrize("losses", [STUCK, np.linspace(2.3, 1.7, STEPS)], ids=["stuck", "slow"])
def test_a_severe_start_is_named_even_where_it_levels_out_at_last(losses):
    (found,) = verdict(record(6.0, losses, late=0.5, when=slice(170, None)))
    assert found.evidence[1].threshold == 0.4
    assert verdict(record(4.0, losses, late=0.5, when=slice(170, None))) == []


def test_a_severe_start_must_not_have_levelled_out_for_most_of_the_run():
    fading = [verdict(record(6.0, late=late, when=slice(20, None))) for late in (1.7, 2.3)]
    assert [len(found) for found in fading] == [0, 1]


def through_time(gain, losses=STUCK, cell="RNN"):
    weight = parameter("rnn.weight_hh_l0", "recurrent", 0, (32, 32), gain * 32**0.5, cell) | {"std": gain / 32**0.5}
    head = parameter("head.weight", order=1, shape=(10, 32)) | {"std": 0.1}
    return make_record(losses, np.full((STEPS, 2), 1e-2), parameters=[weight, head])


def test_a_recurrent_weight_that_forgets_is_named_with_its_gain():
    (found,) = verdict(through_time(0.3))
    assert found.where == ("rnn",)
    assert found.summary.startswith("'rnn' passes on 0.3 of a gradient from one time step to the one before")
    assert [r.id for r in found.remedies] == ["lstm-gating"]
    assert found.evidence[0].value == pytest.approx(0.3)


@pytest.mark.parametrize(
    "made",
    [through_time(0.6), through_time(0.3, LEARNING), through_time(0.3, cell="LSTM")],
    ids=["gain", "learns", "gated"],
)
def test_a_recurrent_weight_is_silent_where_it_keeps_the_net_learns_or_is_gated(made):
    with pytest.raises(NotChecked, match="fewer than three layers"):
        verdict(made)


def ending(gained):
    return np.linspace(2.3, 2.3 * (1 - gained / 0.9), STEPS) + 0.03 * RNG.normal(size=STEPS)


@pytest.mark.parametrize(("gain", "limit"), [(0.24, 0.4), (0.26, 0.1), (0.49, 0.1)])
def test_a_weight_that_forgets_at_once_must_not_have_hindered_learning(gain, limit):
    (found,) = verdict(through_time(gain, ending(limit - 0.05)))
    assert found.evidence[1].threshold == limit
    assert 0 < found.margin < 1e3
    with pytest.raises(NotChecked, match="fewer than three layers"):
        verdict(through_time(gain, ending(limit + 0.05)))


def test_the_message_says_how_much_where_and_what_came_of_it_once():
    (found,) = verdict(record(7.0))
    assert found.summary == (
        "The gradient of 'layers.0' is 1e-07 times that of 'layers.14', 0.1 a layer, "
        "and the loss has not learned: 2.3 at the end, chance is 2.3"
    )
    assert found.evidence[0].value == pytest.approx(1e-7, rel=0.3)
    assert found.evidence[0].threshold == pytest.approx(10**-2.5)


def test_the_signal_is_read_from_biases_where_weights_do_not_show_it():
    """In a chain that shrinks activations too, both factors of a weight's gradient cancel over depth."""
    assert len(verdict(record(6.0, weights=0.0))) == 1
    assert verdict(record(0.5, weights=6.0)) == []


def test_weights_serve_where_there_are_no_biases():
    rms = np.tile(10.0 ** np.linspace(-7, -1, 8), (STEPS, 1))
    (found,) = verdict(make_record(STUCK, rms))
    assert found.evidence[0].note.startswith("RMS gradient of each weight")


SILENT = {
    "the net learns": record(6.0, LEARNING),
    "it learned and its gradients are tiny now": record(6.0, np.minimum(LEARNING, 0.01), scale=1e-4),
    "the profile is mild": record(2.2),
    "flat profile on a task that cannot be learned": record(0.0),
    "gradient grows towards the first layer": record(-6.0),
    "it levelled out": record(4.0, late=0.5),
    "it levelled out at last": record(4.0, late=0.5, when=slice(170, None)),
    "it came and went": record(4.0, late=0.5, when=slice(50, 150)),
    "it was severe and faded for good": record(6.0, late=0.5, when=slice(20, None)),
    "it was severe, levelled out, and the net learns": record(6.0, LEARNING_SLOWLY, late=0.5, when=slice(170, None)),
    "it was not there at first: units that saturated later": record(6.0, late=0.0, when=slice(0, 1)),
    "flat epochs first, then it learns": record(4.0, np.r_[STUCK[:120], LEARNING[:80] * 0.4]),
    "the loss is not finite": record(6.0, np.r_[STUCK[:100], np.full(100, np.inf)]),
}


@pytest.mark.parametrize("made", SILENT.values(), ids=SILENT)
def test_silent(made):
    assert verdict(made) == []


def test_one_layer_far_below_the_others_is_no_decline():
    parameters, modules = chain(DEPTH)
    rms = np.full((STEPS, 2 * DEPTH), 1e-2)
    rms[:, :2] = 1e-12
    assert verdict(make_record(STUCK, rms, parameters=parameters, modules=modules)) == []


def test_a_ragged_profile_is_no_decline():
    """Half of the neighbours go the other way: branches, not a chain."""
    ragged = np.array([-6.0, -6.5, -4.0, -4.5, -2.0, -2.5, 0.0, -0.5])
    parameters, modules = chain(DEPTH)
    made = make_record(STUCK, np.tile(np.repeat(10**ragged, 2), (STEPS, 1)), parameters=parameters, modules=modules)
    assert verdict(made) == []
    assert len(verdict(made, steady=0.4)) == 1


def test_the_margin_is_in_standard_errors_of_the_nearer_threshold():
    mild, steep = (verdict(record(d))[0].margin for d in (3.0, 30.0))
    assert mild == pytest.approx(0.5 / 0.05, rel=0.1)  # that of the line: at its floor
    assert steep == pytest.approx((0.1 - 0.0) / (1.2533 * 0.03 / 40**0.5 / np.log(10)), rel=0.4)  # that of the loss


def test_first_layers_that_die_soon_are_not_judged_by_their_first_steps():
    made = record(6.0)
    norms = made.series("grad_norm", "default").values.copy()
    norms[60:, :-2] = 0.0
    dying = record(6.0)
    dying.put_series("grad_norm", "default", Series(norms.shape[1:]))
    dying.append("grad_norm", "default", np.arange(STEPS), norms)
    assert verdict(dying) == []


def test_layers_without_any_gradient_are_another_fault():
    parameters, modules = chain(DEPTH)
    rms = np.zeros((STEPS, 2 * DEPTH))
    rms[:, -2:] = 1e-2
    with pytest.raises(NotChecked, match="fewer than three layers"):
        verdict(make_record(STUCK, rms, parameters=parameters, modules=modules))


def test_biases_before_batch_norm_carry_only_rounding():
    parameters, modules = chain(DEPTH)
    for module in modules:
        if module["type"] == "ReLU":
            module["type"] = "BatchNorm1d"
    rms = np.tile(np.repeat(10 ** np.linspace(-12, -2, DEPTH), 2), (STEPS, 1))
    rms[:, ::2] = 1e-2
    assert verdict(make_record(STUCK, rms, parameters=parameters, modules=modules)) == []


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter(scale):
    (found,) = verdict(record(6.0, scale=scale, classes=None))
    (plain,) = verdict(record(6.0, classes=None))
    assert found.margin == pytest.approx(plain.margin, rel=1e-3)
    assert verdict(record(6.0, LEARNING, scale=scale, classes=None)) == []


def test_it_waits_for_enough_steps():
    with pytest.raises(NotChecked, match="only 49 steps"):
        verdict(record(losses=STUCK[:49]))
    assert len(verdict(record(losses=STUCK[:50]))) == 1


def test_chance_under_imbalance_is_the_entropy_of_the_targets():
    """A net that has only learned how frequent the classes are has learned nothing of the inputs."""
    made = record(6.0, STUCK * 0.33 / 2.3)
    made.append("train_classes", "targets", STEPS, np.r_[9000, 1000, np.zeros(9)])
    assert len(verdict(made)) == 1
    assert verdict(record(6.0, STUCK * 0.33 / 2.3)) == []


def test_without_chance_the_first_transient_does_not_count_as_learning():
    transient = 0.5 * np.exp(-np.arange(STEPS) / 4)
    assert len(verdict(record(6.0, 1.0 + transient + 0.1 * (STUCK - 2.3), classes=None, stream="mse_loss"))) == 1
    assert verdict(record(6.0, 0.3 + 4 * transient, classes=None, stream="mse_loss")) == []


def test_a_loss_that_is_nowhere_to_be_read_is_not_judged():
    with pytest.raises(NotChecked):
        verdict(record(6.0, np.full(STEPS, np.nan)))


def test_what_it_names_is_what_starves():
    (found,) = verdict(record(6.0))
    assert found.where == tuple(f"layers.{i}" for i in range(0, 10, 2))
    parameters, modules = chain(8)
    rms = 10 ** np.repeat([-2.4, -2.0, -1.5, -1.0, -0.5, 0.0, 0.0, 0.0], 2)
    made = make_record(STUCK, np.tile(rms, (STEPS, 1)), parameters=parameters, modules=modules)
    (found,) = verdict(made)  # the line through all layers falls further than they do
    assert found.where == ("layers.0",)


def test_only_a_recurrent_weight_whose_size_is_known_is_looked_at():
    weight = parameter("rnn.weight_hh_l0", "recurrent", 0, (32, 32), 1.0, "RNN")
    inputs = parameter("rnn.weight_ih_l0", "weight", 0, (32, 32), 1.0, "RNN") | {"std": 0.01}
    for p in (weight, inputs):
        with pytest.raises(NotChecked, match="fewer than three layers"):
            verdict(make_record(STUCK, np.full((STEPS, 1), 1e-2), parameters=[p]))


def test_several_optimisers_are_not_judged():
    made = record()
    made.append("grad_norm", "other", np.arange(STEPS), np.ones((STEPS, 2)))
    with pytest.raises(NotChecked, match="several optimisers"):
        verdict(made)


def test_remedies_name_the_modules_and_carry_numbers():
    (found,) = verdict(record(7.0, regularisation={"normalisation": ["norm"]}))
    remedies = {r.id: r for r in found.remedies}
    assert list(remedies) == ["relu-family", "batch-norm", "initialisation", "residual", "pretrain-finetune"]
    assert "['layers.1', 'layers.3'" in remedies["relu-family"].how
    assert remedies["batch-norm"].already_in_use
    assert not remedies["relu-family"].already_in_use
    assert "std=5.8" in remedies["initialisation"].how  # 1 / sqrt(3) at present, a tenth passed back a layer
    assert "'layers.0' to 'layers.12'" in remedies["residual"].title


def parts(made, weight, between, *, step=20):
    """With factors through weights and through what lies between, in three layers."""
    names = ["layers.0", "layers.2", "layers.4"]
    for name, row in zip(names, ((np.nan, between), (weight, between), (weight, np.nan)), strict=True):
        made.append("backward_gain", name, step, np.array(row))
    made.append("backward_gain", "layers.6", step, np.array([weight, np.nan]))
    made.set_fact("backward_gain", {"modules": [*names, "layers.6"]})
    return made


def test_the_part_that_lets_less_through_is_mended_first():
    (sigmoid,) = verdict(parts(record(7.0), 0.9, 0.21))
    assert [r.id for r in sigmoid.remedies][:2] == ["relu-family", "batch-norm"]
    (weights,) = verdict(parts(record(7.0), 0.21, 0.9))
    assert [r.id for r in weights.remedies] == ["initialisation", "relu-family", "batch-norm", "residual",
                                                "pretrain-finetune"]  # fmt: skip
    (plain,) = verdict(record(7.0))
    assert [r.id for r in plain.remedies] == [r.id for r in sigmoid.remedies]
    assert (plain.margin, plain.summary, plain.where) == (weights.margin, weights.summary, weights.where)


def test_the_two_parts_are_shown_where_they_were_measured():
    (found,) = verdict(parts(record(7.0), 0.9, 0.21))
    weight, between = found.evidence[3:]
    assert (weight.name, weight.value, weight.step) == ("factor through a layer's weight", pytest.approx(0.9), 20)
    assert (between.name, between.value) == ("factor through what lies between two layers", pytest.approx(0.21))
    assert between.note == "geometric mean over 2 layers"
    (plain,) = verdict(record(7.0))
    assert len(plain.evidence) == 3


def test_it_asks_for_the_parts_where_the_gradient_fades_and_little_is_learned():
    wish, further, copies = VanishingGradients().asks(record(2.8))
    assert (further.kind, copies.kind) == ("gradient_noise", "usual_start")
    assert (wish.kind, wish.where) == ("backward_gain", ())
    assert wish.reason.endswith("a layer: through weights or activations?")
    assert list(VanishingGradients().asks(record(1.5))) == []
    assert [wish.kind for wish in VanishingGradients().asks(record(6.0, LEARNING))] == ["usual_start"]
    assert list(VanishingGradients().asks(record(6.0, np.r_[2.3, LEARNING[1:] / 100]))) == []
    assert list(VanishingGradients().asks(RunRecord())) == []
    assert list(VanishingGradients().asks(record(6.0, np.full(STEPS, np.nan)))) == []
    assert list(VanishingGradients().asks(through_time(0.3))) == []


def test_squashing_after_the_last_layer_is_not_to_be_replaced():
    parameters, modules = chain(DEPTH, activation="ReLU")
    modules.append({"name": "head", "type": "Sigmoid", "order": 99})
    rms = np.tile(np.repeat(10.0 ** np.linspace(-7, -1, DEPTH), 2), (STEPS, 1))
    (found,) = verdict(make_record(STUCK, rms, parameters=parameters, modules=modules))
    assert "relu-family" not in {r.id for r in found.remedies}


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize(
    "optimizer", [lambda p: torch.optim.Adam(p, 1e-3), lambda p: torch.optim.SGD(p, 0.1)], ids=["adam", "sgd"]
)
def test_fires_on_a_deep_sigmoid_net(depth, optimizer):
    model = mlp(depth, nn.Sigmoid)
    (found,) = verdict(train(model, optimizer(model.parameters()), *digits(), steps=150))
    assert found.margin > 10
    assert "0" in found.where


@pytest.mark.parametrize(
    ("make", "part", "first"),
    [
        (lambda: mlp(8, nn.Sigmoid), "what lies between", "relu-family"),
        (lambda: times(mlp(8, nn.Tanh), 0.2), "weight", "initialisation"),
    ],
    ids=["sigmoids", "small weights"],
)
def test_a_real_run_says_which_part_is_small_and_begins_with_it(make, part, first):
    report, _ = fit(make(), adam(1e-4))
    found = everything(report)["TW301"]
    weight, between = (e.value for e in found.evidence[3:5])
    assert (between < weight) == (part == "what lies between")
    assert min(weight, between) < 0.3
    assert found.remedies[0].id == first


def test_the_proposed_initialisation_cures_it():
    model = mlp(8, nn.Sigmoid)
    (found,) = verdict(train(model, torch.optim.Adam(model.parameters(), 1e-3), *digits(), steps=100))
    fresh = mlp(8, nn.Sigmoid)
    (how,) = [r.how for r in found.remedies if r.id == "initialisation"]
    exec(how, {"model": fresh, "nn": nn})
    assert verdict(train(fresh, torch.optim.Adam(fresh.parameters(), 1e-3), *digits(), steps=300)) == []


HEALTHY = {
    "relu-3": lambda: mlp(3, nn.ReLU),
    "relu-6": lambda: mlp(6, nn.ReLU),
    "tanh-8": lambda: mlp(8, nn.Tanh),
    "sigmoid-10-batch-norm": lambda: mlp(10, nn.Sigmoid, nn.BatchNorm1d),
    "relu-5-layer-norm": lambda: mlp(5, nn.ReLU, nn.LayerNorm),
}


@pytest.mark.parametrize("make", HEALTHY.values(), ids=HEALTHY)
def test_silent_on_a_net_that_learns(make):
    model = make()
    assert verdict(train(model, torch.optim.Adam(model.parameters(), 2e-3), *digits(), steps=250)) == []


def test_signal_and_noise_are_shown_and_decide_nothing():
    plain = verdict(record(6.0))[0]
    made = record(6.0)
    rows = np.tile([1e-6, 1e-6], (2 * DEPTH, 1))
    rows[1], rows[-1] = (3e-6, 2e-6), (1e-2, 4e-2)  # of the first and the last bias
    made.append("gradient_signal", "train", 100, rows, {"batches": 4})
    (found,) = verdict(made)
    assert found.evidence[:3] == plain.evidence
    shown = found.evidence[3]
    assert shown.value == pytest.approx(3.0)
    assert (shown.where, shown.step) == ("layers.0", 100)
    assert shown.note == "of 4 batches; 1 is pure noise; that of 'layers.14' has 0.5"
    assert found.margin == plain.margin
    learned = record(6.0, LEARNING)
    learned.append("gradient_signal", "train", 100, rows, {"batches": 4})
    assert verdict(learned) == []


def test_a_run_without_any_finite_gradient_is_left_alone_without_a_warning_of_numpys():
    made = make_record(STUCK, np.full((STEPS, 2 * DEPTH), np.inf))
    assert verdict(made) == []


@pytest.mark.parametrize("names", [("usual",), ("rectified",), ("usual", "rectified")])
def test_a_copy_that_leads_shows_it_however_much_was_learned(names):
    (found,) = verdict(with_copies(record(6.0, LEARNING, late=0.0, when=slice(5, None)), *names))
    assert "at first; a copy with usual weights" in found.summary
    (lead,) = [e for e in found.evidence if e.name.startswith("lead of the copy")]
    assert lead.value == pytest.approx(0.7)
    assert found.margin == pytest.approx(2 + (lead.value - lead.threshold) / 0.02)
    assert found.evidence[0].value == pytest.approx(1e-6, rel=0.5)


@pytest.mark.parametrize("how", CHANGES.values(), ids=CHANGES)
def test_a_copy_that_does_not_lead_shows_nothing(how):
    assert verdict(with_copies(record(6.0, LEARNING, late=0.0, when=slice(5, None)), "rectified", **how)) == []


def test_where_no_gradient_fades_a_copy_that_leads_tells_of_something_else():
    assert verdict(with_copies(record(1.5, LEARNING), "usual", "rectified")) == []


def test_of_copies_that_lead_the_better_one_is_told():
    made = with_copies(record(6.0, LEARNING, late=0.0, when=slice(5, None)), "usual")
    (found,) = verdict(with_copies(made, "rectified", other=0.2))
    assert "a copy with usual weights and ReLUs came to a validation loss of 0.2" in found.summary


@pytest.mark.parametrize(("lead", "fires"), [(0.11, True), (0.09, False)])
def test_a_copy_must_lead_by_a_tenth_of_the_loss_of_a_constant_guess(lead, fires):
    made = with_copies(record(6.0, LEARNING, late=0.0, when=slice(5, None)), "usual", other=1.1 - lead * np.log(10))
    assert bool(verdict(made)) is fires


@pytest.mark.parametrize(("error", "margin"), [(0.02, (0.7 - 0.1 * np.log(10)) / 0.02 + 2), (0.0, 1e3)])
def test_a_copy_is_as_sure_as_its_lead_is_beyond_what_counts(error, margin):
    (found,) = verdict(with_copies(record(6.0, LEARNING, late=0.0, when=slice(5, None)), "usual", error=error))
    assert found.margin == pytest.approx(margin, rel=1e-3)
