import math

import numpy as np
import pytest
import torch
from torch import nn

import trainwatch
from loss_records import record
from trainwatch.config import Settings
from trainwatch.record import RunRecord
from trainwatch.record.series import Series
from trainwatch.symptoms.losses import loss_course, not_finite, penalty_share

RNG = np.random.default_rng(0)


def course(values, **more):
    return loss_course(record(values, **more))


def test_no_loss_no_course():
    assert loss_course(RunRecord()) is None
    assert course([np.nan, np.nan]) is None


def test_levels():
    found = course(np.r_[5.0, np.linspace(4, 1, 99)])
    assert found.start == 5
    assert found.end == pytest.approx(np.median(np.linspace(4, 1, 99)[-20:]))
    assert found.best == pytest.approx(np.median(np.linspace(4, 1, 99)[-5:]))
    assert found.best_step == 95
    assert found.settled == pytest.approx(np.median(np.linspace(4, 1, 99)[4:14]))


def test_noise_is_that_of_one_value_about_a_course():
    found = course(np.linspace(5, 1, 4000) + 0.2 * RNG.normal(size=4000))
    assert found.noise == pytest.approx(0.2, rel=0.1)
    assert found.end_error == pytest.approx(1.2533 * 0.2 / 800**0.5, rel=0.15)


def test_one_criterion_is_read_itself_and_several_at_their_root():
    made = record(np.full(9, 2.0), "cross_entropy")
    made.append("train_loss", "root", np.arange(9), np.full(9, 1.0))
    assert loss_course(made).stream == "cross_entropy"
    made.append("train_loss", "kl", np.arange(9), np.full(9, 3.0))
    assert loss_course(made).stream == "root"


def test_a_long_run_is_read_evenly_in_time():
    values = np.r_[9.0, np.full(49_999, 3.0), np.full(50_000, 1.0)]
    found = course(values)
    assert found.start == 9
    assert found.settled == 3
    assert (found.values > 2).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_shares_do_not_depend_on_the_scale(scale):
    found = course(scale * np.linspace(2, 1, 100))
    assert found.gained == pytest.approx(0.45, abs=0.02)
    assert found.gained_error == pytest.approx(course(np.linspace(2, 1, 100)).gained_error, rel=1e-3)


def test_negative_losses_gain_too():
    assert course(np.linspace(-1, -3, 100)).gained == pytest.approx(1.8, abs=0.05)
    assert course(np.full(100, -1.0)).gained == 0


def test_a_fall_in_the_first_tenth_is_no_learning_unless_most_went():
    transient = np.exp(-np.arange(200) / 3)
    assert course(1 + 0.5 * transient).learned < 0.02
    assert course(1 + 0.5 * transient).gained > 0.3
    assert course(1 + 5 * transient).learned > 0.8


def test_an_end_that_is_not_finite_has_gained_nothing():
    found = course([2.0, 1.0, *[np.inf] * 20])
    assert found.gained == found.learned == -math.inf
    assert "not finite at the end" in found.story
    assert found.harm(0.1, 0.7) == (1e3, False)


@pytest.mark.parametrize(("end", "harmed", "relapse"), [(0.2, False, None), (2.0, True, False), (1.9, True, True)])
def test_harm(end, harmed, relapse):
    """Of a run that starts at 2 and, where `relapse` is not None, has been at 0.2 before."""
    middle = np.full(100, 0.2 if relapse in (None, True) else 2.0)
    values = np.r_[np.full(50, 2.0), middle, np.full(100, end)] + 0.01 * RNG.normal(size=250)
    margin, lost = course(values).harm(0.1, 0.7)
    assert (margin > 0) is harmed
    if relapse is not None:
        assert lost is relapse or end < 2


def test_not_finite_finds_the_first_row_its_columns_and_how_it_goes_on():
    series = Series((3,))
    values = np.ones((10, 3))
    values[4, 1:] = np.inf
    values[4, 0] = np.nan
    values[8:, 2] = np.inf
    series.append(10 * np.arange(10), values)
    found = not_finite(series)
    assert (found.step, found.columns, found.present, found.trailing) == (40, (1, 2), 2, 2)
    assert found.share == pytest.approx(3 / 6)


def test_not_finite_takes_nan_for_absent():
    series = Series(())
    series.append([0, 1], [np.nan, 1e38])
    assert not_finite(series) is None


def course_with(**at):
    """A run that falls from 2 to 1, without noise, but for a loss at some steps, given as ``s50=9.0``."""
    values = np.linspace(2, 1, 100) + 0.001 * np.tile([1, -1], 50)
    for name, value in at.items():
        values[int(name[1:])] = value
    return course(values)


def test_a_rise_is_two_losses_in_a_row():
    assert course_with().rise(0.1, 5.0, 0, 2.0) is None
    assert course_with(s50=9.0).rise(0.1, 5.0, 0, 2.0) is None
    assert course_with(s50=9.0, s52=9.0).rise(0.1, 5.0, 0, 2.0) is None
    assert course_with(s50=9.0, s51=9.0).rise(0.1, 5.0, 0, 2.0) == 50
    assert course_with(s10=9.0, s50=9.0, s51=np.inf).rise(0.1, 5.0, 0, 2.0) == 50


def test_a_rise_lies_after_a_step_above_a_level_by_a_share_of_the_reference():
    twice = course_with(s20=4.0, s21=4.0, s60=9.0, s61=9.0)
    assert twice.rise(0.1, 5.0, 0, 2.0) == 20
    assert twice.rise(0.1, 5.0, 21, 2.0) == 60
    assert twice.rise(1.5, 5.0, 0, 2.0) == 60  # 2 + 1.5 of the first loss is 5
    assert twice.rise(0.1, 5.0, 0, 5.0) == 60
    assert twice.rise(4.0, 5.0, 0, 2.0) is None


def test_a_rise_stands_out_of_the_noise_unless_the_run_ends_up_there():
    noise = 0.3 * np.clip(np.random.default_rng(0).normal(size=200), -1.5, 1.5)
    noise[80:82] = 1.0
    back = course(2 + noise)
    assert back.rise(0.1, 2.5, 0, 2.0) == 80
    assert back.rise(0.1, 5.0, 0, 2.0) is None
    there = course(np.r_[2 + noise[:100], 3 + noise[100:]])
    assert there.rise(0.1, 10.0, 0, 2.0) is not None


def test_the_last_loss_is_a_rise_where_the_end_is():
    assert course([1.0, 1.0, 1.0, 1.0, 3.0]).rise(0.5, 5.0, 0, 1.0) == 4


@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_smoothed_labels_leave_a_loss_that_no_net_gets_below(smoothing):
    labels = np.full(10, smoothing / 10)
    labels[3] += 1 - smoothing
    floor = -(labels * np.log(labels)).sum()
    facts = {"function": "cross_entropy", "classes": 10, "arguments": {"label_smoothing": smoothing}}
    found = course(np.full(50, floor), stream="cross_entropy", facts=facts)
    assert found.floor == pytest.approx(floor)
    assert found.gained == pytest.approx(1.0)
    assert found.bound(1.0) == pytest.approx(floor)
    halfway = course(np.full(50, (floor + math.log(10)) / 2), stream="cross_entropy", facts=facts)
    assert halfway.gained == pytest.approx(0.5)


def test_without_smoothing_a_perfect_net_has_no_loss():
    assert course(np.full(50, 1.0), stream="cross_entropy", facts={"classes": 10}).floor == 0.0


def with_penalty(criterion=1.0, root=1.5, factor=1.0, others=()):
    made = record(np.full(100, criterion))
    made.append("train_loss", "root", np.arange(100), np.full(100, root))
    made.append("loss_factor", "mse_loss", 0, factor)
    for name in others:
        made.append("train_loss", name, np.arange(100), np.ones(100))
    return made


def vanishing():
    made = record(np.full(100, 1.0))
    made.append("train_loss", "root", np.arange(100), 1.0 + np.r_[np.full(10, 0.5), np.zeros(90)])
    made.append("loss_factor", "mse_loss", 0, 1.0)
    return made


@pytest.mark.parametrize(
    ("made", "share"),
    [
        (with_penalty(), 1 / 3),
        (vanishing(), 1 / 3),
        (with_penalty(root=0.75, factor=0.5), 1 / 3),
        (with_penalty(root=1.0), 0.0),
        (with_penalty(root=0.9), 0.0),
        (with_penalty(others=("l1_loss",)), 0.0),
        (with_penalty(root=np.inf), 0.0),
        (record(np.ones(100)), 0.0),
        (RunRecord(), 0.0),
    ],
    ids=[
        "a third",
        "a third at the start",
        "divided",
        "none",
        "a reward",
        "two criteria",
        "not finite",
        "no root",
        "nothing",
    ],
)
def test_a_penalty_is_what_the_root_has_beyond_its_only_criterion(made, share):
    assert penalty_share(made) == pytest.approx(share, abs=1e-6)


GUESSES = {
    "squared": (nn.MSELoss(), lambda y: y.var(unbiased=False)),
    "absolute": (nn.L1Loss(), lambda y: (y - y.median()).abs().mean()),
    "smooth": (nn.SmoothL1Loss(), lambda y: nn.functional.smooth_l1_loss(y.median().expand_as(y), y)),
    "huber": (nn.HuberLoss(), lambda y: nn.functional.huber_loss(y.median().expand_as(y), y)),
    "huber, of another width": (nn.HuberLoss(delta=0.1), None),
    "summed": (nn.L1Loss(reduction="sum"), None),
}


@pytest.mark.parametrize(("criterion", "costs"), GUESSES.values(), ids=GUESSES)
def test_what_a_constant_guess_costs_in_a_real_regression(criterion, costs):
    torch.manual_seed(0)
    x, y = torch.randn(4096, 3), torch.distributions.Exponential(1.0).sample((4096,))  # lopsided, unlike normal numbers
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with trainwatch.watch(model, optimizer, settings=Settings(quiet=True, strict=True, probes="off")) as watched:
        for rows in torch.arange(4096).split(512):
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()
    found = loss_course(watched.record)
    if costs is None:
        assert found.chance is None
    else:
        assert found.chance == pytest.approx(float(costs(y)), rel=0.1)
