import math

import numpy as np
import pytest
import torch
from synthetic_gradients import Sequence, chain, digits, make_record, mlp, train
from torch import nn

from trainwatch.diagnosis import Severity
from trainwatch.record.series import Series
from trainwatch.rules import NotChecked
from trainwatch.rules.tw302_exploding_gradients import EFFECTS, ExplodingGradients
from trainwatch.symptoms.losses import loss_course

STEPS, DEPTH, CHANCE = 200, 8, math.log(10)
RNG = np.random.default_rng(0)
STUCK = 2.5 + 0.05 * RNG.normal(size=STEPS)
LEARNING = 2.3 * np.exp(-np.arange(STEPS) / 50) + 0.03 * RNG.normal(size=STEPS)
RELAPSED = np.r_[LEARNING[:150], STUCK[:50] * 0.85]
PARAMETERS, MODULES = chain(DEPTH)
SANE = np.tile(10 ** (-2 + 0.1 * RNG.normal(size=(STEPS, 1))), (1, 2 * DEPTH))
NOISE = 0.03 * RNG.normal(size=STEPS)


def record(decades=0.0, losses=STUCK, *, burst=1.0, at=100, scale=1.0, **more):
    """A chain whose bias gradients rise by `decades` to the first layer; from step `at` on all norms are multiplied."""
    rms = SANE[: len(losses)].copy()
    rms[:, 1::2] *= 10 ** np.linspace(decades, 0, DEPTH)
    rms[at:] *= burst
    return make_record(scale * np.asarray(losses), scale * rms, parameters=PARAMETERS, modules=MODULES, **more)


def verdict(made, **thresholds):
    return list(ExplodingGradients(**thresholds).check(made))


@pytest.mark.parametrize("decades", [2.5, 5.0, 12.0])
def test_fires_on_amplification_before_any_update(decades):
    (found,) = verdict(record(decades))
    assert found.severity == Severity.ERROR
    assert found.margin > 2
    assert found.onset_step == 0
    assert found.where[0] == "layers.0"
    assert "layers.14" not in found.where


@pytest.mark.parametrize(("burst", "margin"), [(200, 1.0), (1e4, 6.7), (1e9, 23.3)])
def test_fires_on_growth_against_its_own_past(burst, margin):
    (found,) = verdict(record(burst=burst))
    assert found.onset_step == 100
    assert found.margin == pytest.approx(margin, abs=0.9)


def test_the_messages_say_how_much_where_and_what_came_of_it_once():
    (found,) = verdict(record(4.0))
    assert found.summary == (
        "Before any update the gradient of 'layers.0' is 1e+04 times that of 'layers.14', and the loss is no better "
        "for training: 2.51 at the start, 2.48 at best, 2.49 at the end (2.3 is chance)"
    )
    (found,) = verdict(record(burst=1e5))
    assert found.summary.startswith("At step 100 the gradient's norm is 1.")
    assert "e+05 times its median until then, and the loss is no better for training: 2.51 at" in found.summary


@pytest.mark.parametrize("losses", [STUCK, RELAPSED, np.r_[LEARNING[:110], np.full(90, np.inf)]])
@pytest.mark.parametrize("shape", [{"decades": 4.0}, {"burst": 1e5}], ids=["depth", "growth"])
def test_each_kind_of_harm_counts(shape, losses):
    assert len(verdict(record(losses=losses, **shape))) == 1


SILENT = {
    "sane and stuck": record(),
    "amplified, but it learns": record(4.0, LEARNING),
    "a burst, but it learns": record(burst=1e5, losses=LEARNING),
    "mildly amplified": record(1.5),
    "mild burst": record(burst=50),
    "falls towards the first layer": record(-5.0),
    "norms shrink by much": record(burst=1e-6),
    "a part of the gain is lost": record(4.0, np.r_[LEARNING[:150], np.full(50, 1.1)]),
}


@pytest.mark.parametrize("made", SILENT.values(), ids=SILENT)
def test_silent(made):
    assert verdict(made) == []


def test_a_loss_that_is_not_finite_after_sane_gradients_is_not_explained_by_them():
    assert verdict(record(losses=np.r_[LEARNING[:100], np.full(100, np.inf)])) == []


def test_the_scale_of_the_data_in_the_first_layer_is_no_amplification():
    rms = np.full((STEPS, 4), 1e-2)
    rms[:, 0] = 1e6
    assert verdict(make_record(STUCK, rms)) == []


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("shape", [{"decades": 4.0}, {"burst": 1e5}], ids=["depth", "growth"])
def test_the_scale_of_the_loss_does_not_matter(scale, shape):
    (found,) = verdict(record(scale=scale, lr=0.1 / scale, classes=None, **shape))
    (plain,) = verdict(record(classes=None, **shape))
    assert found.margin == pytest.approx(plain.margin, rel=1e-3)
    assert verdict(record(losses=LEARNING, scale=scale, lr=0.1 / scale, classes=None, **shape)) == []


def test_a_burst_along_which_no_step_is_long_throws_nothing_away():
    """Beside a past in which next to nothing got through any gradient is large."""
    assert len(verdict(record(burst=1e5))) == 1
    assert verdict(record(burst=1e5, scale=1e-6, classes=None)) == []
    assert len(verdict(record(burst=1e5, scale=1e-6, classes=None, optimizer="Adam"))) == 1, (
        "its steps are as long anyway"
    )


@pytest.mark.parametrize(("ratio", "fires"), [(0.11, True), (0.09, False)])
def test_a_step_along_the_burst_must_be_longer_than_a_tenth_of_the_weights(ratio, fires):
    """Gradients of 1000 from step 100 on, and weights of 96**-0.5 each."""
    rms = np.full((STEPS, 2 * DEPTH), 1e-2)
    rms[100:] = 1e3
    made = make_record(STUCK, rms, parameters=PARAMETERS, modules=MODULES, lr=ratio * 96**-0.5 / 1e3)
    assert bool(verdict(made)) is fires


SHAPES = {"depth": {"decades": 4.0}, "growth": {"burst": 1e5}}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("gained", "fires"), [(0.08, True), (0.12, False)])
def test_a_run_that_removed_a_tenth_of_the_loss_of_chance_has_learned(gained, fires, shape):
    losses = np.linspace(CHANCE, CHANCE * (1 - gained / 0.9), STEPS) + NOISE
    assert bool(verdict(record(losses=losses, **shape))) is fires


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("lost", "fires"), [(0.75, True), (0.65, False)])
def test_a_run_that_lost_seven_tenths_of_its_best_gain_has_relapsed(lost, fires, shape):
    best = float(np.median(LEARNING[140:150]))
    losses = np.r_[LEARNING[:150], best + lost * (CHANCE - best) + NOISE[:50]]
    assert bool(verdict(record(losses=losses, **shape))) is fires


def test_the_margin_is_in_standard_errors_of_the_nearer_threshold():
    (mild,) = verdict(record(2.5))
    assert mild.margin == pytest.approx((2.5 - 2.0) / 0.05)  # that of the line: at its floor
    (steep,) = verdict(made := record(12.0))
    assert steep.margin == pytest.approx(loss_course(made).harm(0.1, 0.7)[0])
    assert steep.margin < (12.0 - 2.0) / 0.05


def test_where_the_line_rises_further_than_any_layer_the_first_is_named():
    rms = SANE.copy()
    rms[:, 1::2] *= 10 ** np.r_[np.linspace(2.5, 0, DEPTH)[:-1], 1.0]  # the last layer lies above the line
    (found,) = verdict(make_record(STUCK, rms, parameters=PARAMETERS, modules=MODULES))
    assert found.where == ("layers.0",)


def test_it_waits_for_enough_steps_unless_the_loss_is_not_finite():
    with pytest.raises(NotChecked, match="only 29 steps"):
        verdict(record(4.0, STUCK[:29]))
    assert len(verdict(record(4.0, STUCK[:30]))) == 1
    assert len(verdict(record(4.0, [2.3, 1e6, np.inf, np.inf]))) == 1


def test_clipping_is_told_from_the_norms_before_the_burst():
    made = record(burst=1e5, regularisation={"clipping": {"max_norm": 1.0}})
    (found,) = verdict(made)
    clipping = found.remedies[0]
    assert clipping.id == "gradient-clipping"
    norms = made.series("grad_norm", "default").values[:100]
    assert float(clipping.title.split()[-1]) == pytest.approx(np.quantile(np.sqrt((norms**2).sum(1)), 0.9), rel=0.1)
    assert clipping.already_in_use


def test_remedies_for_depth_come_first_where_it_was_there_before_any_update():
    (found,) = verdict(record(7.0))
    assert [r.id for r in found.remedies][:2] == ["initialisation", "layer-norm"]
    assert "std=0.058" in found.remedies[0].how  # 1 / sqrt(3) at present, tenfold a layer


@pytest.mark.parametrize(("weight", "between", "first"), [(3.0, 0.7, "initialisation"), (0.7, 3.0, "layer-norm")])
def test_the_part_that_grows_more_is_mended_first_and_both_are_shown(weight, between, first):
    made = record(7.0)
    for name in "abc":
        made.append("backward_gain", name, 20, np.array([weight, between]))
    made.set_fact("backward_gain", {"modules": list("abc")})
    (found,) = verdict(made)
    assert found.remedies[0].id == first
    assert {r.id for r in found.remedies} == {r.id for r in verdict(record(7.0))[0].remedies}
    assert [e.value for e in found.evidence[2:]] == pytest.approx([weight, between])
    assert len(verdict(record(7.0))[0].evidence) == 2


def test_it_asks_for_the_parts_where_the_gradient_grows_and_nothing_is_learned():
    (wish,) = ExplodingGradients().asks(record(2.3))
    assert wish.kind == "backward_gain"
    assert list(ExplodingGradients().asks(record(1.7))) == []
    assert list(ExplodingGradients().asks(record(7.0, LEARNING))) == []


@pytest.mark.parametrize(("ratio", "offered"), [(0.008, False), (0.5, True), (9.0, True), (11.0, False)])
def test_a_lower_rate_is_offered_where_it_can_be_a_cure(ratio, offered):
    """By the length of the update before the burst over that of the weights, 96**-0.5 each."""
    made = record(burst=1e5, lr=ratio * 96**-0.5 / 1e-2)
    rms = np.full((STEPS, 2 * DEPTH), 1e-2)
    rms[100:] = 1e3
    made.put_series("grad_norm", "default", Series((2 * DEPTH,)))
    made.append("grad_norm", "default", np.arange(STEPS), rms * np.sqrt([p["numel"] for p in PARAMETERS]))
    (found,) = verdict(made)
    lower = [r for r in found.remedies if r.id == "lower-learning-rate"]
    assert bool(lower) is offered
    if offered:
        assert lower[0].why.startswith(f"The update at step 99 was {ratio:.2g} times as long as the weights.")
        assert lower[0].title.endswith(f"about {1e-2 * 96**-0.5 / 1e-2:.1g}")


def test_it_explains_what_is_not_finite_only_if_it_came_first():
    (cause,) = verdict(record(4.0))
    explains = ExplodingGradients.explains["TW303"]
    assert explains(cause, cause.with_(code="TW303", onset_step=5))
    (late,) = verdict(record(burst=1e5))
    assert not explains(late, late.with_(code="TW303", onset_step=50))


def scaled(model, gain):
    """Weights of this standard deviation times the root of the fan-in."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_(0, gain / math.sqrt(p.shape[1]))
    return model


FAULTY = {
    "relu-8": lambda: scaled(mlp(8, nn.ReLU), 6),
    "tanh-20": lambda: scaled(mlp(20, nn.Tanh), 4),
    "rnn-tanh": lambda: scaled(Sequence(nn.RNN, 32), 5),
    "rnn-relu": lambda: scaled(Sequence(nn.RNN, 32, nonlinearity="relu"), 3),
}


@pytest.mark.parametrize("make", FAULTY.values(), ids=FAULTY)
def test_fires_on_a_badly_scaled_net(make):
    model = make()
    (found,) = verdict(train(model, torch.optim.SGD(model.parameters(), 0.05), *digits(), steps=80))
    assert found.onset_step == 0
    assert found.margin > 3


HEALTHY = {
    "relu-6": (lambda: mlp(6, nn.ReLU), 1e-3, None),
    "relu-10-batch-norm": (lambda: mlp(10, nn.ReLU, nn.BatchNorm1d), 1e-3, None),
    "rnn, clipped": (lambda: Sequence(nn.RNN, 8), 3e-3, 1.0),
    "lstm": (lambda: Sequence(nn.LSTM, 8), 1e-2, None),
}


@pytest.mark.parametrize(("make", "lr", "clip"), HEALTHY.values(), ids=HEALTHY)
def test_silent_on_a_net_that_learns(make, lr, clip):
    model = make()
    made = train(model, torch.optim.Adam(model.parameters(), lr), *digits(), steps=200, clip=clip)
    assert verdict(made) == []


def test_layers_whose_gradient_is_amplified_are_named_and_no_others():
    (found,) = verdict(record(5.0))
    assert 1 < len(found.where) < DEPTH
    assert found.where[0] == "layers.0"


def test_it_accounts_for_what_large_gradients_do():
    assert set(ExplodingGradients.explains) == {*EFFECTS, "TW303"}
    assert {"TW203", "TW304", "TW305"} < set(EFFECTS)


@pytest.mark.parametrize(("burst", "found"), [(50, 0), (110, 1)])
def test_the_norm_must_grow_a_hundredfold(burst, found):
    assert len(verdict(record(burst=burst))) == found
