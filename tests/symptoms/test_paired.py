import numpy as np
import pytest

from trainwatch.symptoms.curves import ValidationCurve
from trainwatch.symptoms.paired import last_passes, rise_of, unimodal

LENGTHS = (5, 7, 10, 20, 50)
ERRORS = 2.0
AFTER = 3


def made(losses, *, paired=True):
    length, columns = losses.shape
    weights = np.full(columns, 1 / columns)
    steps = 10 * np.arange(1, length + 1)
    return ValidationCurve("val", steps, losses, weights, None, paired, np.zeros(length), True, float(losses[0].mean()))


def stands_out(curve):
    rise = rise_of(curve)
    return len(curve.steps) - 1 - rise.best >= AFTER and rise.rise > ERRORS * rise.error


@pytest.mark.parametrize("own", [0.0, 0.3], ids=["shared-noise", "noise-per-sample"])
def test_pure_noise_does_not_rise(own):
    alarms = 0
    for seed in range(200):
        rng, length = np.random.default_rng(seed), LENGTHS[seed % len(LENGTHS)]
        samples = rng.exponential(1, 64) + own * rng.standard_normal((length, 64))
        alarms += stands_out(made(samples + 0.1 * rng.standard_normal((length, 1))))
    assert alarms <= 2


@pytest.mark.parametrize("length", [10, 50])
def test_a_rise_well_above_the_noise_is_found(length):
    found = 0
    for seed in range(40):
        rng, t = np.random.default_rng(seed), np.arange(length)
        mean = 0.5 + 0.1 * np.abs(t - length // 3) + 0.01 * rng.standard_normal(length)
        found += stands_out(made(mean[:, None] + rng.exponential(0.3, 64)))
    assert found >= 38


def test_pairing_removes_what_makes_samples_hard_throughout():
    mean = 0.5 + 0.02 * np.abs(np.arange(20) - 6)
    losses = mean[:, None] + np.random.default_rng(0).exponential(1, 64)
    assert rise_of(made(losses)).error < 0.2 * rise_of(made(losses, paired=False)).error


def test_the_error_over_samples_agrees_with_that_of_a_paired_difference():
    rng = np.random.default_rng(0)
    slopes = rng.exponential(1, 200)
    t = np.arange(30)
    losses = 1 + 0.05 * np.abs(t - 10)[:, None] * slopes
    rise = rise_of(made(losses))
    gained = losses[-2] - losses[11]  # the level of the minimum is the median of three passes round it
    assert rise.error == pytest.approx(gained.std() / np.sqrt(200), rel=0.15)
    assert rise.rise == pytest.approx(gained.mean(), rel=0.05)


def test_where_it_turns_has_an_interval():
    mean = 0.5 + 0.02 * np.abs(np.arange(30) - 12) + 0.01 * np.random.default_rng(1).standard_normal(30)
    rise = rise_of(made(mean[:, None] + np.zeros((1, 8))))
    low, high = rise.best_steps
    assert low <= 130 <= high
    assert high - low <= 120
    assert rise.interval[0] < rise.rise < rise.interval[1]
    assert rise.probability == 1.0


def test_one_stray_pass_at_the_end_is_outvoted():
    mean = np.r_[np.linspace(2, 0.5, 10), np.full(10, 0.51)]
    mean[-1] = 5.0
    assert rise_of(made(mean[:, None] + np.zeros((1, 8)))).rise < 0.05


def test_the_measure_scales_with_the_loss():
    losses = np.random.default_rng(0).exponential(1, 32) + (0.02 * np.abs(np.arange(15) - 5))[:, None]
    plain, scaled = rise_of(made(losses)), rise_of(made(1000 * losses))
    assert scaled.rise == pytest.approx(1000 * plain.rise)
    assert scaled.error == pytest.approx(1000 * plain.error)


def test_unimodal_fit_is_the_curve_where_it_already_falls_and_rises():
    y = np.array([5.0, 3.0, 1.0, 2.0, 4.0])
    assert unimodal(y, 2) == pytest.approx(y)
    assert unimodal(np.array([5.0, 3.0, 1.0, 4.0, 2.0]), 2) == pytest.approx([5, 3, 1, 3, 3])
    assert unimodal(np.array([1.0, 2.0]), 0) == pytest.approx([1, 2])


@pytest.mark.parametrize(("length", "last"), [(4, 2), (5, 2), (6, 3), (39, 3), (100, 10)])
def test_now_is_a_few_passes(length, last):
    assert last_passes(length) == last


def test_losses_that_explode_on_a_few_samples_do_not_hide_the_rise_that_they_make():
    losses = np.concatenate([np.repeat(np.linspace(1, 0, 9)[:-1, None], 200, 1), np.zeros((12, 200))])
    losses[8:, :12] = np.arange(12.0)[:, None] * np.geomspace(1, 30, 12)
    rise, share = rise_of(made(losses)), losses[-2] - losses[8]
    two_sided = share.std() / np.sqrt(len(share))
    assert rise.error < 0.9 * two_sided
    assert not stands_out(made(np.delete(losses, np.s_[2:12], axis=1)))  # two samples may be chance
