"""TW403: it fires where steps leap above a valley's floor, and is silent at the edge of stability."""

import numpy as np
import pytest
from saddles import FLAT, HEALTHY, PLATEAUS, SADDLES, VALLEYS, found, mlp, run, sgd, silent
from synthetic_gradients import make_record, tried
from torch import nn

from trainwatch.rules import NotChecked
from trainwatch.rules.tw403_step_beyond_stability import StepBeyondStability
from trainwatch.symptoms.sharpness import sharpness

RULE = StepBeyondStability()
CHANCE = float(np.log(10))
NOISE = 0.01 * np.random.default_rng(0).normal(size=200)


def record(losses=None, *, value=2.6, bound=0.01, limit=2.0, best=0.5, fall=0.4, error=0.01, rate=0.1):
    losses = 0.6 * CHANCE + NOISE if losses is None else np.asarray(losses, float)
    made = make_record(losses, np.full((len(losses), 1), 1e-2))
    tried(made, best, fall=fall, error=error)
    made.append("sharpness", "held", len(losses), [value, bound, limit, 12, rate])
    return made


def fires(made, **thresholds):
    return len(list(StepBeyondStability(**thresholds).check(made)))


def test_a_step_beyond_stability_is_told_with_what_was_measured():
    (diagnosis,) = RULE.check(record())
    assert [e.value for e in diagnosis.evidence[:3]] == pytest.approx([2.6, 0.4, 0.5])
    assert [e.threshold for e in diagnosis.evidence[:2]] == pytest.approx([2.2, 0.05 * CHANCE])
    assert "rate times sharpness is 2.6 where SGD is stable up to 2;" in diagnosis.summary
    lower, decay = diagnosis.remedies
    assert lower.title == "Lower the learning rate from 0.1 to about 0.04"  # half of what is stable
    assert "Rate times sharpness is then about 1; the limit is 2." in lower.why
    assert decay.id == "decay-learning-rate"
    (diagnosis,) = RULE.check(record(best=1 / 16))
    assert diagnosis.remedies[0].title.endswith("about 0.006")  # where it did best


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        (record(value=2.25), record(value=2.15)),
        (record(value=2.25), record(value=2.25, bound=0.06)),
        (record(value=42.0, limit=38.0), record(value=41.0, limit=38.0)),
        (record(fall=0.12, error=1e-3), record(fall=0.11, error=1e-3)),
        (record(error=0.19), record(error=0.21)),
        (record(best=0.5), record(best=1.0)),
        (record(best=0.5), record(best=0.0)),
        (record(CHANCE + NOISE - np.linspace(0, 0.9, 200)), record(CHANCE + NOISE - np.linspace(0, 1.7, 200))),
    ],
    ids=["beyond", "by the bound, too", "of adam", "harm", "beyond noise", "shorter", "not at all", "it gains more"],
)  # fmt: skip
def test_each_threshold_is_where_the_rule_says(inside, outside):
    assert fires(inside) == 1
    assert fires(outside) == 0


def test_it_abstains_where_it_cannot_tell():
    with pytest.raises(NotChecked, match="different learning rates"):
        fires(record(rate=0.05))
    with pytest.raises(NotChecked, match="too few steps"):
        fires(record(0.6 * CHANCE + NOISE[: RULE.steps - 1]))
    assert fires(record(0.6 * CHANCE + NOISE[: RULE.steps])) == 1


def test_it_asks_where_the_loss_rests_without_being_good():
    assert {wish.kind for wish in RULE.asks(record())} == {"step_line", "sharpness"}
    assert list(RULE.asks(record(0.05 * CHANCE + NOISE))) == []
    assert list(RULE.asks(record(CHANCE - np.linspace(0, 1.7, 200)))) == []
    assert list(RULE.asks(record(0.6 * CHANCE + NOISE[:30]))) == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("data", "model", "how"), VALLEYS.values(), ids=VALLEYS)
def test_a_training_that_leaps_across_a_valley_is_told(data, model, how, seed):
    watch = run(data, model, seed, **how)
    diagnosis = found(RULE, watch.record)
    assert diagnosis.margin > 3
    assert sharpness(watch.record).excess > 1.2
    assert "TW403" in [d.code for d in watch.report.diagnoses], "no other cause"


@pytest.mark.parametrize("seed", range(5))
def test_the_rate_that_it_proposes_gets_lower(seed):
    data, model, how = VALLEYS["all samples at once"]
    watch = run(data, model, seed, **how)
    rate = float(found(RULE, watch.record).remedies[0].title.rpartition(" ")[2])
    calm = run(data, model, seed, **(how | {"optimizer": sgd(rate)}))
    ends = [w.record.series("train_loss", "mse_loss").values[-20:].mean() for w in (watch, calm)]
    assert ends[1] < 0.8 * ends[0]
    assert silent(RULE, calm.record)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("data", "model", "how"), [*HEALTHY.values(), *SADDLES.values(), *PLATEAUS.values()],
    ids=[*HEALTHY, *(f"saddle, {name}" for name in SADDLES), *(f"plateau, {name}" for name in PLATEAUS)],
)  # fmt: skip
def test_a_training_that_is_elsewhere_is_not(data, model, how, seed):
    assert silent(RULE, run(data, model, seed, **how).record)


def test_the_edge_of_stability_is_no_fault():
    """Sound training with all samples at once comes to hover about the limit."""
    data, model, how = HEALTHY["at the edge of stability"]
    watch = run(data, model, 0, **how)
    assert sharpness(watch.record).excess > 0.85
    assert found(RULE, watch.record) is None


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_scale_of_the_loss_does_not_matter(factor):
    data, model, how = VALLEYS["all samples at once"]
    plain = run(data, model, **how)
    other = run(data, model, **(how | {"optimizer": sgd(0.5 / factor), "factor": factor}))
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
