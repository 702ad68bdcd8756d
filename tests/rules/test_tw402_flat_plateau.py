"""TW402: it fires on plateaus where there is something to learn and no way on, and nowhere else."""

import numpy as np
import pytest
from saddles import (
    FLAT,
    PLATEAUS,
    adam,
    dead,
    found,
    mlp,
    noise,
    run,
    scaled,
    sgd,
)
from synthetic_gradients import make_record, parameter
from torch import nn

from trained import split
from trainwatch.engine import nest
from trainwatch.rules import NotChecked
from trainwatch.rules.tw402_flat_plateau import FlatPlateau
from trainwatch.rules.tw706_missing_nonlinearity import MissingNonlinearity

RULE = FlatPlateau()
CHANCE = float(np.log(10))
NOISE = 0.01 * np.random.default_rng(0).normal(size=200)
HESSIAN = (
    0.4,
    0.01,
    -0.01,
    0.001,
    9,
    -0.001,
    0.01,
    1e-3,
    5e-4,
    8,
    4.0,
)  # of which 7 and 8: squared gradient, its error


def record(
    losses=None,
    *,
    share=1e-3,
    slope=1e-3,
    error=5e-4,
    ahead=1.5,
    ahead_error=0.1,
    down=None,
    down_error=0.01,
    classes=10,
):
    """A net of two layers that rests at chance; the first gets this share of the squared gradient of the second."""
    losses = CHANCE + NOISE if losses is None else np.asarray(losses, float)
    layers = [parameter("0.weight", order=0), parameter("2.weight", order=2)]
    rms = np.tile([share**0.5 * 1e-2, 1e-2], (len(losses), 1))
    made = make_record(
        losses, rms, parameters=layers, classes=classes, stream="cross_entropy" if classes else "l1_loss"
    )
    made.append("hessian", "held", 200, [*HESSIAN[:7], slope, error, *HESSIAN[9:]])
    if down is not None:
        rows = np.full((6, 6), np.nan)
        rows[:2] = [[0, CHANCE, CHANCE, 0, 0, 0], [1, CHANCE - down, CHANCE - down, down_error, 0.1, 0.1]]
        made.append("saddle_line", "held", 200, rows)
    if ahead is not None:
        made.append("evaluated_loss", "held", 200, [CHANCE, 0.0, CHANCE, CHANCE, 0.0])
        made.append("reference_loss", "boosting", 200, [CHANCE, CHANCE - ahead, ahead_error, CHANCE, 500, 200])
    return made


def fires(made, **thresholds):
    return len(list(FlatPlateau(**thresholds).check(made)))


def falling(share):
    """A loss above chance that falls by this share of it in the last third of the steps."""
    fall = np.log(np.maximum(np.arange(1, 201) * 1.5 / 200, 1)) / np.log(1.5)
    return CHANCE * (1.1 - share * fall) + NOISE


def shaken(made, lead, error):
    """With copies whose weights were shaken, which lead by so much."""
    made.append("shaken_loss", "held", 200, [150, 0.3, CHANCE, CHANCE, *(CHANCE - lead, error) * 2])
    return made


def test_a_plateau_is_told_with_what_was_measured():
    (diagnosis,) = RULE.check(record())
    assert diagnosis.evidence[0].value == pytest.approx(1e-3, rel=1e-3)
    assert diagnosis.evidence[1].value == pytest.approx(1e-3 / 0.8)
    assert diagnosis.evidence[3].value == pytest.approx(0.4 * 16 / CHANCE)
    assert diagnosis.evidence[4].value == pytest.approx(1.5)
    assert "the loss rests at 2.3, where a constant guess costs 2.3; the squared gradient of" in diagnosis.summary


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        (record(CHANCE * 0.92 + NOISE), record(CHANCE * 0.88 + NOISE)),
        (record(CHANCE + NOISE - np.r_[np.zeros(133), np.linspace(0, 0.1, 67)]),
         record(CHANCE + NOISE - np.r_[np.zeros(133), np.linspace(0, 0.4, 67)])),
        (record(slope=0.0174, error=0.0), record(slope=0.0194, error=0.0)),
        (record(slope=0.0274, error=0.005), record(slope=0.0294, error=0.005)),
        (record(share=0.095), record(share=0.105)),
        (record(down=0.065), record(down=0.075)),
        (record(down=0.2, down_error=0.11), record(down=0.2, down_error=0.09)),
        (record(ahead=0.24, ahead_error=0.01), record(ahead=0.22, ahead_error=0.01)),
        (record(ahead_error=0.45), record(ahead_error=0.55)),
        (record(falling(0.08)), record(falling(0.12))),
        (shaken(record(), 0.065, 0.01), shaken(record(), 0.075, 0.01)),
        (shaken(record(), 0.2, 0.07), shaken(record(), 0.2, 0.06)),
    ],
    ids=["learned", "rest", "promise", "promise beyond noise", "starved", "drop", "a drop beyond noise", "lead",
         "errors", "fall lately", "lead of shaken copies", "a lead of shaken copies beyond noise"],
)  # fmt: skip
def test_each_threshold_is_where_the_rule_says(inside, outside):
    assert fires(inside) == 1
    assert fires(outside) == 0


def test_of_two_ways_down_the_longer_one_counts():
    assert fires(shaken(record(down=0.05), 0.05, 0.01)) == 1
    assert fires(shaken(record(down=0.05), 0.2, 0.01)) == 0
    assert fires(shaken(record(down=0.2), 0.05, 0.01)) == 0


@pytest.mark.parametrize(
    ("made", "margin"),
    [(record(share=1e-3), 9.9), (record(share=0.05), 5.0), (record(ahead=0.4, ahead_error=0.1), 4.0)],
    ids=["the rivals lead is surer", "half as starved", "the rivals lead"],
)
def test_the_margin_is_that_of_the_rivals_lead_or_of_how_starved_the_layers_are_whichever_is_less(made, margin):
    (diagnosis,) = RULE.check(made)
    assert diagnosis.margin == pytest.approx(margin, rel=1e-3)


def pressed(size=0.0, largest=0.0, smallest=0.0, level=1.5, ahead=None, **more):
    """A run that rests at so many times chance, whose gradients and curvature are next to nothing everywhere."""
    made = record(level * CHANCE + NOISE, share=1.0, ahead=ahead, **more)
    for quantity in ("grad_norm", "hessian"):
        made._series.pop(quantity)
    made._memo.clear()
    made.append("grad_norm", "default", np.arange(200), np.full((200, 2), size))
    made.append("hessian", "held", 200, [largest, 0.0, smallest, 0.0, 1, -1e-9, 1e-9, 0.0, 0.0, 8, 4.0])
    return made


def test_answers_pressed_to_their_ends_are_told_and_a_constant_guess_is_ahead():
    (diagnosis,) = RULE.check(pressed())
    assert [e.value for e in diagnosis.evidence[:2]] == [0.0, 0.0]
    assert diagnosis.evidence[0].threshold == pytest.approx(1e-3 * CHANCE)
    assert diagnosis.evidence[4].value == pytest.approx(0.5 * CHANCE, rel=0.01)
    assert diagnosis.evidence[4].where == "a constant guess"
    assert "where a constant guess costs 2.3;" in diagnosis.summary
    assert diagnosis.summary.endswith("no direction leads down, and a constant guess comes to 2.3")
    assert RULE.check(pressed(ahead=1.5)).__next__().evidence[4].where == "boosting"


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        (pressed(size=3.8e-4), pressed(size=4.4e-4)),  # 4 sqrt(2) size is below 0.0023
        (pressed(largest=2.7e-4), pressed(largest=3e-4)),  # 8 largest is
        (pressed(smallest=-2.7e-4), pressed(smallest=-3e-4)),
        (pressed(level=1.12), pressed(level=1.08)),
        (pressed(down=0.065), pressed(down=0.075)),
    ],
    ids=["slope", "curvature", "negative curvature", "lead of a constant guess", "drop"],
)
def test_each_threshold_of_a_net_that_gets_no_gradient_at_all(inside, outside):
    assert fires(inside) == 1
    assert fires(outside) == 0


def test_at_the_level_of_a_constant_guess_it_has_no_lead():
    with pytest.raises(NotChecked, match="whether there is anything to learn was not measured"):
        fires(pressed(level=0.99))


def test_it_abstains_where_it_cannot_tell():
    with pytest.raises(NotChecked, match="whether there is anything to learn was not measured"):
        fires(record(ahead=None))
    with pytest.raises(NotChecked, match="what a constant guess costs"):
        fires(record(classes=None))
    with pytest.raises(NotChecked, match="too few steps"):
        fires(record([CHANCE] * 3))


def test_a_body_that_is_not_trained_is_not_starved():
    made = record()
    made._series.pop("grad_norm")
    made._memo.clear()
    made.append("grad_norm", "default", np.arange(200), np.tile([np.nan, 0.3], (200, 1)))
    assert fires(made) == 0


def test_it_asks_what_could_be_learned_where_nothing_was():
    assert {wish.kind for wish in RULE.asks(record())} == {"saddle", "reference", "train_eval"}
    assert list(RULE.asks(record(0.8 * CHANCE + NOISE))) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("data", "model", "how"), PLATEAUS.values(), ids=PLATEAUS)
def test_a_training_on_a_plateau_is_told_and_vanishing_gradients_are_the_cause(data, model, how, seed):
    watch = run(data, model, seed, **how)
    assert found(RULE, watch.record).margin > 3
    causes = {d.code: d for d in watch.report.diagnoses}
    assert "TW402" in [d.code for d in causes["TW301"].walk()]


@pytest.mark.parametrize("seed", [1, 2])
def test_dead_units_are_the_cause_of_the_plateau_that_they_make(seed):
    watch = run("digits", lambda: dead(mlp(64, 10, 16, nn.ReLU, 2)), seed, epochs=5)
    causes = {d.code: d for d in watch.report.diagnoses}
    assert "TW402" in [d.code for d in causes["TW304"].walk()]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("classes", "end"), [("digits", nn.Softmax(1)), ("wine", nn.Sigmoid())])
def test_a_training_whose_answers_are_pressed_to_their_ends_is_told_and_its_start_is_the_cause(classes, end, seed):
    x, xv, y, yv = split(classes, seed)
    y, yv = (nn.functional.one_hot(t).float() for t in (y, yv))
    make = lambda: scaled(nn.Sequential(*mlp(x.shape[1], y.shape[1], 16, nn.ReLU), end), 40.0)  # noqa: E731
    watch = run((x, xv, y, yv), make, seed, epochs=30, batch=64, optimizer=sgd(0.1))
    assert found(RULE, watch.record) is not None
    causes = {d.code: d for d in watch.report.diagnoses}
    assert "TW402" in [d.code for d in causes["TW309"].walk()]
    assert "TW302" not in [d.code for cause in causes.values() for d in cause.walk()]


UNLEARNABLE = {
    "relu": (lambda: mlp(10, 3, 8, nn.ReLU), sgd(0.02)),
    "sigmoid": (lambda: mlp(10, 3, 16, nn.Sigmoid), sgd(0.02)),
    "two layers of sigmoids": (lambda: mlp(10, 3, 16, nn.Sigmoid, 2), adam(3e-3)),
    "tanh": (lambda: mlp(10, 3, 16, nn.Tanh, 4), sgd(0.02)),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("model", "optimizer"), UNLEARNABLE.values(), ids=UNLEARNABLE)
def test_where_there_is_nothing_to_learn_the_loss_rests_for_good_reason(model, optimizer, seed):
    assert found(RULE, run(noise(seed), model, seed, epochs=8, optimizer=optimizer).record) is None


@pytest.mark.parametrize("seed", range(3))
def test_steps_that_are_too_short_are_no_plateau(seed):
    low = run("diabetes", lambda: mlp(10, 1, 16, end=FLAT), seed, epochs=20, optimizer=sgd(1e-6))
    assert found(RULE, low.record) is None


def test_a_linear_net_at_its_best_is_the_fault_of_the_missing_nonlinearity():
    cause = MissingNonlinearity().diagnose("", margin=1.0)
    (nested,) = nest([RULE.diagnose("", margin=1.0), cause])
    assert [d.code for d in nested.walk()] == ["TW706", "TW402"]
