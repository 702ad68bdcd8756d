import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch
from loss_records import record
from trainwatch.symptoms.curves import validation_curve
from trainwatch.symptoms.guess import NAT, chance_of, floor_of, guess_in_validation
from trainwatch.symptoms.losses import loss_course
from trainwatch.symptoms.plateau import gained_in_both, training_trend, validation_trend

COUNTS = np.random.default_rng(0).poisson([1.0, 9.0], (400, 2)).astype(np.float32).reshape(-1)


def test_chance_is_the_logarithm_of_the_classes_or_the_entropy_of_the_targets():
    made = record([1.0], "cross_entropy", {"classes": 10})
    assert chance_of(made, "cross_entropy") == pytest.approx(math.log(10))
    made.append("train_classes", "targets", 0, [75, 25, *[0] * 8, 900])
    assert chance_of(made, "cross_entropy") == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


@pytest.mark.parametrize(
    ("stream", "facts"),
    [
        ("mse_loss", {"classes": 10}),
        ("cross_entropy", {"classes": None}),
        ("cross_entropy", {"classes": 1}),
        ("cross_entropy", {"classes": 10, "reduction": "sum"}),
        ("binary_cross_entropy_with_logits", {"classes": 10}),
    ],
)
def test_chance_is_not_guessed(stream, facts):
    assert chance_of(record([1.0], stream, facts), stream) is None


@pytest.mark.parametrize("arguments", [{"label_smoothing": 0.1}, {"weight": [1.0, 2.0]}])
def test_weighted_criteria_do_not_cost_the_entropy(arguments):
    made = record([1.0], "cross_entropy", {"classes": 2, "arguments": arguments})
    made.append("train_classes", "targets", 0, [90, 10, 0])
    assert chance_of(made, "cross_entropy") == pytest.approx(math.log(2))


TAGS = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) < torch.tensor([0.05, 0.5, 0.8])


def of_labels(targets=TAGS, stream="binary_cross_entropy_with_logits", **arguments):
    """A run that took two batches of targets with several labels each."""
    y = targets.float()
    made = record([1.0], stream, {"classes": y.shape[1], "arguments": arguments})
    for step, part in enumerate(y.chunk(2)):
        made.append("train_classes", "labels", step, [*(part > 0.5).sum(0).tolist(), len(part)])
        whole = float((part == part.round()).float().mean())
        spread = [part.mean(), part.std(), *part.quantile(torch.tensor([0.05, 0.95]))]
        made.append("target_stats", stream, step, [part.min(), part.max(), *spread, whole, 0.5, 0.3])
    return made, stream


@pytest.mark.parametrize("stream", ["binary_cross_entropy_with_logits", "multilabel_soft_margin_loss"])
def test_several_labels_cost_the_mean_of_their_entropies(stream):
    made, stream = of_labels(stream=stream)
    best = torch.logit(TAGS.float().mean(0)).expand(200, 3)
    assert chance_of(made, stream) == pytest.approx(float(getattr(F, stream)(best, TAGS.float())), rel=1e-5)
    assert loss_course(made).chance == chance_of(made, stream)
    never = torch.cat([TAGS, torch.zeros(200, 1, dtype=torch.bool)], 1)
    assert chance_of(*of_labels(never, stream)) == pytest.approx(0.75 * chance_of(made, stream)), (
        "a label that is never given"
    )


@pytest.mark.parametrize(
    "made",
    [
        of_labels(0.05 + 0.9 * TAGS),
        of_labels(2.0 * TAGS),
        of_labels(TAGS.float() - 1),
        of_labels(torch.zeros(200, 3)),
        of_labels(pos_weight=[2.0, 1.0, 1.0]),
    ],
    ids=["smoothed", "above one", "below zero", "all alike", "weighted"],
)
def test_labels_that_count_for_more_or_less_are_not_guessed(made):
    assert chance_of(*made) is None


def test_one_logit_beside_several_labels_costs_what_its_own_classes_do():
    made, several = of_labels()
    made.set_fact("loss", {several: {"function": several, "reduction": "mean", "arguments": {}, "classes": 2}})
    made.append("train_classes", "targets", 0, [90, 10, 0])
    assert chance_of(made, several) == pytest.approx(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)))


def test_a_run_whose_samples_have_several_labels_is_held_against_what_they_cost():
    x = torch.randn(200, 5)
    model = nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "probes": "off"}) as watch:
        for rows in torch.arange(200).split(20):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(x[rows]), TAGS[rows].float()).backward()
            optimizer.step()
    known = chance_of(*of_labels())
    assert loss_course(watch.record).chance == pytest.approx(known, rel=1e-4)
    assert known < 0.8 * math.log(2)


def moments(y):
    positive = np.where(y > 0, y * np.log(np.maximum(y, 1e-30)), 0.0).mean()
    return [y.mean(), y.var(), positive if (y >= 0).all() else np.nan, y.var(), len(y)]


def of_counts(values, stream="poisson_nll_loss", y=COUNTS, **arguments):
    made = record(values, stream, {"arguments": arguments})
    for step, part in enumerate(y.reshape(8, -1)):
        made.append("target_moments", stream, step, moments(part))
    return made


def test_a_poisson_likelihood_lies_between_the_guess_and_the_counts_themselves():
    made, y = of_counts([1.0]), torch.from_numpy(COUNTS)
    guess = F.poisson_nll_loss(y.mean().log().expand_as(y), y)
    own = F.poisson_nll_loss(y.clamp(min=1e-9).log(), y)
    assert chance_of(made, "poisson_nll_loss") == pytest.approx(float(guess), rel=1e-5)
    assert floor_of(made, "poisson_nll_loss") == pytest.approx(float(own), rel=1e-5)


def test_a_gaussian_likelihood_may_have_targets_of_either_sign():
    y = torch.from_numpy(COUNTS - 5)
    guess = F.gaussian_nll_loss(y.mean().expand_as(y), y, y.var(unbiased=False).expand_as(y))
    made = of_counts([1.0], "gaussian_nll_loss", COUNTS - 5)
    assert chance_of(made, "gaussian_nll_loss") == pytest.approx(float(guess), rel=1e-5)


def test_a_gaussian_likelihood_is_held_against_mean_and_variance():
    made, y = of_counts([1.0], "gaussian_nll_loss"), torch.from_numpy(COUNTS)
    guess = F.gaussian_nll_loss(y.mean().expand_as(y), y, y.var(unbiased=False).expand_as(y))
    assert chance_of(made, "gaussian_nll_loss") == pytest.approx(float(guess), rel=1e-5)
    assert floor_of(made, "gaussian_nll_loss") == pytest.approx(float(guess) - NAT, rel=1e-5)
    whole = of_counts([1.0], "gaussian_nll_loss", full=True)
    full = F.gaussian_nll_loss(y.mean().expand_as(y), y, y.var(unbiased=False).expand_as(y), full=True)
    assert chance_of(whole, "gaussian_nll_loss") == pytest.approx(float(full), rel=1e-5)


@pytest.mark.parametrize(
    "made",
    [
        of_counts([1.0], full=True),
        of_counts([1.0], y=np.zeros(800)),
        of_counts([1.0], y=COUNTS - 5),
        record([1.0], "poisson_nll_loss", {}),
    ],
    ids=["full", "no counts", "negative", "none seen"],
)
def test_a_likelihood_that_is_not_known_is_not_guessed(made):
    assert chance_of(made, "poisson_nll_loss") is None
    assert floor_of(made, "poisson_nll_loss") == 0.0


def test_shares_are_of_what_lies_above_the_least():
    guess, own = chance_of(of_counts([1.0]), "poisson_nll_loss"), floor_of(of_counts([1.0]), "poisson_nll_loss")
    assert guess < 0
    half = (guess + own) / 2
    course = loss_course(of_counts(np.r_[1.0, np.full(99, half)]))
    assert course.gained == pytest.approx(0.5, abs=0.01)
    assert course.span == pytest.approx(guess - own, rel=1e-5)
    assert course.bound(0.5) == pytest.approx(half, rel=1e-4)
    assert course.first == pytest.approx((1 - own) / (guess - own), rel=1e-5)
    assert course.guesses(2) == pytest.approx(own + 2 * (guess - own), rel=1e-5)
    assert loss_course(record([1.0])).first is loss_course(record([1.0])).guesses(2) is None
    assert course.rise(0.1, 3, 10, half) is None
    assert loss_course(of_counts(np.r_[np.full(99, half), np.full(99, half + 0.2 * course.span)])).rise(
        0.1, 3, 10, half
    ) == pytest.approx(99, abs=1)


def both(end):
    made = of_counts(np.r_[1.0, np.full(99, end)])
    made.set_fact("validation", {"val": {"kind": "val", "primary": True, "criterion": "poisson_nll_loss"}})
    for step in range(0, 101, 5):
        made.append("val_loss", "val", step, end)
    return made


def test_validation_has_a_guess_and_a_least_of_its_own():
    made, further = both(-3.0), COUNTS[:200] + 3
    assert guess_in_validation(made, "val") == (None, 0.0)
    alike = validation_curve(made)
    assert (alike.chance, alike.floor) == (loss_course(made).chance, loss_course(made).floor)  # as in training
    made = both(-3.0)
    made.append("val_target_moments", "val", 100, moments(further))
    curve, y = validation_curve(made), torch.from_numpy(further)
    assert curve.chance == pytest.approx(float(F.poisson_nll_loss(y.mean().log().expand_as(y), y)), rel=1e-5)
    assert curve.floor == pytest.approx(float(F.poisson_nll_loss(y.log(), y)), rel=1e-5)
    assert curve.kept[-1] == pytest.approx((-3 - curve.floor) / (curve.chance - curve.floor), rel=1e-5)
    assert gained_in_both(made) == pytest.approx(min(loss_course(made).gained, 1 - curve.kept[-1]), rel=1e-5)


def test_trends_know_the_least():
    made = both(-3.0)
    course = loss_course(made)
    for trend in (made.memo(training_trend), made.memo(validation_trend)):
        assert trend.span == pytest.approx(course.span, rel=1e-5)
        assert trend.learned == pytest.approx((course.chance + 3) / course.span, rel=1e-3)
        assert trend.has_dropped == pytest.approx(trend.drop / (trend.reference - course.floor), rel=1e-5)
    assert made.memo(validation_trend).left == pytest.approx(-3 - course.floor, rel=1e-4)


def test_a_squared_error_of_sorted_targets_is_held_against_all_of_them():
    y = np.sort(np.random.default_rng(0).normal(size=800))
    made = of_counts([1.0], "mse_loss", y)
    made.append("target_stats", "mse_loss", 0, [-3, 3, 0, 0.1, -1, 1, 0, 0.1, 0.1])
    assert chance_of(made, "mse_loss") == pytest.approx(0.01)
    made.set_fact("run", {"train_samples": 800})
    made.set_fact("loaders", {"train": {"batch_size": 100}})
    assert chance_of(made, "mse_loss") == pytest.approx(y.var(), rel=1e-5)
    assert math.isclose(floor_of(made, "mse_loss"), 0)
