import numpy as np
import pytest

from trainwatch.rules.rising_validation import RisingValidation
from trainwatch.symptoms.curves import ValidationCurve
from trainwatch.symptoms.paired import last_passes, rise_of, unimodal

LENGTHS = (5, 7, 10, 20, 50)
ERRORS, AFTER = RisingValidation.min_errors, RisingValidation.min_after


def made(losses, *, paired=True):
    length, columns = losses.shape
    weights = np.full(columns, 1 / columns)
    steps = 10 * np.arange(1, length + 1)
    return ValidationCurve("val", steps, losses, weights, None, paired, np.zeros(length), True, float(losses[0].mean()))


def stands_out(curve):
    rise = rise_of(curve)
    return len(curve.steps) - 1 - rise.best >= AFTER and rise.rise > ERRORS * rise.error


def wandering(rng, length, alike):
    """Noise of deviation 1 whose neighbours are correlated by `alike`."""
    noise = rng.standard_normal(length)
    for i in range(1, length):
        noise[i] = alike * noise[i - 1] + (1 - alike**2) ** 0.5 * noise[i]
    return noise


@pytest.mark.parametrize(
    ("own", "alike", "most"),
    [(0.0, 0.0, 18), (0.3, 0.0, 14), (0.0, 0.5, 40), (0.0, -0.5, 6)],
    ids=["shared-noise", "noise-per-sample", "neighbours-alike", "neighbours-unlike"],
)
def test_pure_noise_seldom_rises(own, alike, most):
    """At so few standard errors as the rules ask for one in twelve does, and more where the noise is slow."""
    alarms = 0
    for seed in range(200):
        rng, length = np.random.default_rng(seed), LENGTHS[seed % len(LENGTHS)]
        samples = rng.exponential(1, 64) + own * rng.standard_normal((length, 64))
        alarms += stands_out(made(samples + 0.1 * wandering(rng, length, alike)[:, None]))
    assert alarms <= most


def test_slow_noise_makes_the_rise_less_sure_than_fast_noise_does():
    def error(alike):
        """In standard deviations of the noise, as measured."""
        rises = []
        for seed in range(60):
            noise = wandering(np.random.default_rng(seed), 40, alike)
            rises.append(rise_of(made(1 + 0.1 * noise[:, None] + np.zeros((1, 8)))))
        return float(np.median([r.error / r.noise for r in rises]))

    fast, white, slow = error(-0.5), error(0.0), error(0.5)
    assert 0.7 < fast < 0.85  # nothing of it is slow
    assert slow > 1.3 * fast
    assert fast < white < slow


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


@pytest.mark.parametrize(
    ("length", "last"), [(4, 2), (5, 2), (6, 3), (31, 3), (32, 5), (39, 5), (47, 5), (48, 7), (100, 13), (128, 17)]
)
def test_now_is_a_few_passes_more_of_them_on_a_long_curve(length, last):
    assert last_passes(length) == last


@pytest.mark.parametrize(("length", "stray", "level"), [(20, 1, 1.0), (20, 2, 0.2), (64, 4, 1.0), (64, 5, 0.2)])
def test_the_minimum_is_a_level_and_no_short_dip(length, stray, level):
    """Half of the passes that a level is the median of: one of three, four of nine."""
    mean = np.ones(length)
    mean[length // 2 : length // 2 + stray] = 0.2
    rise = rise_of(made(mean[:, None] + np.zeros((1, 8))))
    assert rise.minimum == pytest.approx(level)
    assert rise.end == pytest.approx(1.0)


def test_the_best_pass_is_the_lowest_about_that_level():
    mean = np.abs(np.arange(64) - 30) / 100 + 0.5
    mean[32], mean[50] = 0.4, 0.1
    rise = rise_of(made(mean[:, None] + np.zeros((1, 8))))
    assert (rise.best, rise.best_step) == (32, 330)


@pytest.mark.parametrize(("length", "last"), [(5, 1), (6, 1), (20, 1), (64, 4)])
def test_stray_passes_at_the_end_are_outvoted_up_to_half_of_them(length, last):
    mean = np.full(length, 1.0)
    mean[length - last :] = 5.0
    assert rise_of(made(mean[:, None] + np.zeros((1, 8)))).end == pytest.approx(3.0 if length == 5 else 1.0)
    mean[length - last - 1 :] = 5.0
    assert rise_of(made(mean[:, None] + np.zeros((1, 8)))).end == 5.0


def test_a_curve_of_few_passes_is_taken_as_it_is():
    assert rise_of(made(np.array([3.0, 1.0, 0.2, 1.0, 1.0, 1.0, 1.0])[:, None] + np.zeros((1, 8)))).minimum == 0.2


def test_losses_that_explode_on_a_few_samples_do_not_hide_the_rise_that_they_make():
    losses = np.concatenate([np.repeat(np.linspace(1, 0, 9)[:-1, None], 200, 1), np.zeros((12, 200))])
    losses[8:, :12] = np.arange(12.0)[:, None] * np.geomspace(1, 30, 12)
    rise, share = rise_of(made(losses)), losses[-2] - losses[8]
    two_sided = share.std() / np.sqrt(len(share))
    assert rise.error < 0.9 * two_sided
    assert stands_out(made(losses))
    two = rise_of(made(np.delete(losses, np.s_[2:12], axis=1)))
    assert two.rise == pytest.approx(2 * two.error)  # two samples may be chance: their tail is two errors wide


@pytest.mark.parametrize("height", [10.0, 1e3])
def test_a_rise_without_bound_is_no_less_sure_for_swinging_as_far_as_it_rises(height):
    draw = np.random.default_rng(0)
    wild = np.r_[np.linspace(1, 0.2, 6), height * draw.lognormal(0, 1, 34)]
    losses = wild[:, None] * draw.lognormal(0, 0.3, (40, 64))
    curve = ValidationCurve(
        stream="val", steps=10 * np.arange(40), losses=losses, weights=np.full(64, 1 / 64), accuracy=None, paired=True,
        training=np.full(40, np.nan), same_criterion=True, start=1.0, chance=1.0,
    )  # fmt: skip
    found = rise_of(curve)
    assert found.rise > 3 * found.error
    assert found.end == pytest.approx(np.median(curve.mean[-found.last :]))
    assert found.rise == pytest.approx(found.end, rel=0.5)
    assert found.interval[0] == pytest.approx(found.rise - 1.96 * found.error)
