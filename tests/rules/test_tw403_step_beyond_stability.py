"""TW403: it fires where steps leap above a valley's floor, and is silent at the edge of stability."""

import numpy as np
import pytest
from saddles import FLAT, HEALTHY, VALLEYS, found, mlp, run, sgd, silent
from synthetic_gradients import make_record
from torch import nn

from trainwatch.rules import NotChecked
from trainwatch.rules.tw403_step_beyond_stability import StepBeyondStability
from trainwatch.symptoms.sharpness import sharpness

RULE = StepBeyondStability()
KINDS = ("sharpness", "lower_rate")
CHANCE = float(np.log(10))
NOISE = 0.01 * np.random.default_rng(0).normal(size=200)


def record(losses=None, *, value=2.0, bound=0.01, limit=2.0, present=1.4, gain=0.6, others=0.6, error=0.01, at=None):
    """A run, and copies that get lower by `gain` in training and by `others` in validation (None: none is held)."""
    losses = 0.65 * CHANCE + NOISE if losses is None else np.asarray(losses, float)
    made = make_record(losses, np.full((len(losses), 1), 1e-2))
    unseen = [np.nan] * 3 if others is None else [present, present - others, error]
    step = len(losses) if at is None else at
    made.append("lower_rate", "held", step, [1 / 3, present, present - gain, error, *unseen])
    made.append("sharpness", "held", len(losses), [value, bound, limit, 12, 0.1])
    return made


def fires(made, **thresholds):
    return len(list(StepBeyondStability(**thresholds).check(made)))


def test_a_step_beyond_stability_is_told_with_what_was_measured():
    (diagnosis,) = RULE.check(record(value=2.6))
    assert [e.value for e in diagnosis.evidence] == pytest.approx([2.6, 0.6, 0.6, 0.65 * CHANCE], abs=0.01)
    assert [e.threshold for e in diagnosis.evidence[:3]] == pytest.approx([1.4, 0.35, 0.03 * CHANCE])
    assert diagnosis.summary == (
        "rate times sharpness is 2.6 where SGD is stable up to 2, and at 0.33 of the rate a copy comes to a training "
        "loss of 0.8, where another stays at 1.4"
    )
    lower, decay = diagnosis.remedies
    assert lower.title == "Lower the learning rate from 0.1 to about 0.03"  # what was tried
    assert decay.id == "decay-learning-rate"
    (diagnosis,) = RULE.check(record(value=8.0))
    assert diagnosis.remedies[0].title.endswith("about 0.01")  # half of what is stable
    assert "Rate times sharpness is then about 1; the limit is 2." in diagnosis.remedies[0].why


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        (record(value=1.42), record(value=1.38)),
        (record(value=1.38, bound=0.03), record(value=1.38)),
        (record(value=27.0, limit=38.0), record(value=26.0, limit=38.0)),
        (record(present=0.25, gain=0.075, others=0.075), record(present=0.25, gain=0.065, others=0.065)),
        (record(gain=0.36), record(gain=0.34)),
        (record(others=0.07), record(others=0.065)),
        (record(others=None), record(others=None, gain=0.34)),
        (record(error=0.29), record(error=0.31)),
        (record(present=1.1, gain=0.3, others=0.3), record(0.45 * CHANCE + NOISE, present=1.1, gain=0.3, others=0.3)),
    ],
    ids=["near", "with its bound", "of adam", "harm", "part", "in validation, too", "no validation", "beyond noise",
         "the run stands higher"],
)  # fmt: skip
def test_each_threshold_is_where_the_rule_says(inside, outside):
    assert fires(inside) == 1
    assert fires(outside) == 0


@pytest.mark.parametrize(
    ("copies", "margin"),
    [
        ({}, (0.6 - 0.25 * 1.4) / (0.05 * 0.6)),  # a twentieth of the gain is more than its error
        ({"error": 0.1}, (0.6 - 0.25 * 1.4) / 0.1),
        ({"others": 0.1}, (0.1 - 0.03 * CHANCE) / 0.01),
    ],
    ids=["at its floor", "of the error", "of validation"],
)
def test_the_margin_is_in_standard_errors_of_the_lesser_gain(copies, margin):
    (diagnosis,) = RULE.check(record(**copies))
    assert diagnosis.margin == pytest.approx(margin, rel=1e-4)


def test_it_began_a_third_of_the_steps_before_it_was_measured():
    (diagnosis,) = RULE.check(record())
    assert diagnosis.onset_step == 133


def test_it_abstains_where_it_cannot_tell():
    with pytest.raises(NotChecked, match="not tried at the end"):
        fires(record(at=100))
    with pytest.raises(NotChecked, match="too few steps"):
        fires(record(0.6 * CHANCE + NOISE[: RULE.steps - 1]))
    assert fires(record(0.6 * CHANCE + NOISE[: RULE.steps])) == 1
    with pytest.raises(NotChecked, match="not tried at the end"):
        fires(record(present=np.inf))
    assert fires(record(value=1.0, at=100)) == 0, "steps are short enough, whatever a lower rate would do"


def test_it_asks_where_something_is_left_and_the_loss_does_not_surely_fall():
    asked = [wish.kind for wish in sorted(RULE.asks(record()), key=lambda wish: -wish.priority)]
    assert asked == ["sharpness", "lower_rate"], "the second looks at what the first has found"
    assert list(RULE.asks(record(0.02 * CHANCE + NOISE))) == []
    assert list(RULE.asks(record(CHANCE - np.linspace(0, 1.7, 200)))) == []
    assert len(list(RULE.asks(record(CHANCE - np.linspace(0, 0.4, 200) + 60 * NOISE)))) == 2
    assert list(RULE.asks(record(0.6 * CHANCE + NOISE[:30]))) == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("data", "model", "how"), VALLEYS.values(), ids=VALLEYS)
def test_a_training_that_leaps_across_a_valley_is_told(data, model, how, seed):
    watch = run(data, model, seed, **how)
    diagnosis = found(RULE, watch.record)
    assert diagnosis.margin > 3
    assert sharpness(watch.record).excess > 0.7
    assert "TW403" in [d.code for d in watch.report.diagnoses], "no other cause"


@pytest.mark.parametrize("seed", range(5))
def test_the_rate_that_it_proposes_gets_lower(seed):
    data, model, how = VALLEYS["all samples at once"]
    watch = run(data, model, seed, kinds=KINDS, **how)
    rate = float(found(RULE, watch.record).remedies[0].title.rpartition(" ")[2])
    calm = run(data, model, seed, kinds=KINDS, **(how | {"optimizer": sgd(rate)}))
    ends = [w.record.series("train_loss", "mse_loss").values[-20:].mean() for w in (watch, calm)]
    assert ends[1] < 0.8 * ends[0]
    assert silent(RULE, calm.record)


def test_the_edge_of_stability_is_no_fault():
    """Sound training with all samples at once comes to hover about the limit."""
    data, model, how = HEALTHY["at the edge of stability"]
    watch = run(data, model, 0, kinds=KINDS, **how)
    assert sharpness(watch.record).excess > 0.85
    assert found(RULE, watch.record) is None


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_scale_of_the_loss_does_not_matter(factor):
    data, model, how = VALLEYS["all samples at once"]
    plain = run(data, model, kinds=KINDS, **how)
    other = run(data, model, kinds=KINDS, **(how | {"optimizer": sgd(0.5 / factor), "factor": factor}))
    assert sharpness(other.record).value == pytest.approx(sharpness(plain.record).value, rel=0.3)
    assert found(RULE, other.record) is not None


def test_too_high_a_rate_comes_before_what_it_leads_to():
    from trainwatch.engine import nest
    from trainwatch.rules.tw601_learning_rate_too_high import LearningRateTooHigh
    from trainwatch.rules.tw603_oscillating_loss import OscillatingLoss

    all_three = [rule.diagnose("", margin=1.0) for rule in (OscillatingLoss(), RULE, LearningRateTooHigh())]
    (cause,) = nest(all_three)
    assert [d.code for d in cause.walk()] in (["TW601", "TW403", "TW603"], ["TW601", "TW603", "TW403"])
    (cause,) = nest(all_three[:2])
    assert [d.code for d in cause.walk()] == ["TW403", "TW603"]


def test_a_net_of_relus_with_an_optimiser_that_is_not_known_is_not_judged():
    import torch

    made = run("diabetes", lambda: mlp(10, 1, 8, nn.ReLU, end=FLAT), epochs=10, optimizer=torch.optim.Adagrad)
    assert "it is not known how sharp a loss Adagrad can bear" in made.report.not_checked["TW403"]
