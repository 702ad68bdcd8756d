import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.swings import FEWEST, LAGS, MOST, swing_of

RNG = np.random.default_rng(0)
STEPS = 200
TO_AND_FRO = 1.0 + 0.25 * (-1.0) ** np.arange(STEPS)


def record(values, stream="l1_loss", steps=None, **facts):
    made = RunRecord()
    made.append("train_loss", stream, np.arange(len(values)) if steps is None else steps, np.asarray(values, float))
    for topic, value in facts.items():
        made.set_fact(topic, value)
    return made


def swing(values, **more):
    return swing_of(record(values, **more))


def wave(half, steps=STEPS):
    return 1.0 + 0.25 * np.cos(np.pi * np.arange(steps) / half)


def test_no_loss_no_swing():
    assert swing_of(RunRecord()) is None
    assert swing(np.full(STEPS, np.nan)) is None


def test_to_and_fro_from_one_step_to_the_next():
    found = swing(TO_AND_FRO)
    assert (found.stream, found.lag) == ("l1_loss", 1)
    assert found.correlation == pytest.approx(-1, abs=0.02)
    assert found.error == pytest.approx(0.1)
    assert found.size == pytest.approx(1.4826 * 0.25, rel=0.02)
    assert found.fall == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("half", [2, 5, 12, LAGS])
def test_the_lag_is_half_a_swing(half):
    found = swing(wave(half, 4000))
    assert found.lag == pytest.approx(half, abs=1)
    assert found.correlation == pytest.approx(-1, abs=0.1)


def test_of_lags_that_are_as_good_the_first_counts():
    """Longer swings of the same loss are as deep within an error of it, or deeper by chance."""
    noise = RNG.normal(size=4 * STEPS)
    for half in (1, 3):
        deep = np.cos(np.pi * np.arange(4 * STEPS) / half) + 0.3 * noise
        assert [swing(deep + 0.1 * RNG.normal(size=4 * STEPS)).lag for _ in range(8)] == [half] * 8
    assert swing(wave(20, 200)).lag + 2 < swing(wave(20, 4000)).lag


def test_slower_waves_are_a_course_and_no_swing():
    assert swing(wave(3 * LAGS, 2000)).correlation > -0.1


def test_a_short_run_has_too_few_pairs_of_large_lags():
    """Half of 80 losses: at most ten lags, and a cosine of half a period 20 is past its zero there at most."""
    assert swing(wave(5, 80)).lag == pytest.approx(5, abs=1)
    assert swing(wave(20, 80)).correlation > -0.5


def test_fewer_losses_than_that_are_not_judged():
    assert swing(TO_AND_FRO[: 2 * FEWEST - 2]) is None
    assert swing(TO_AND_FRO[: 2 * FEWEST]) is not None


def test_swings_that_die_out_in_the_first_half_do_not_count():
    calm = 1.0 + 0.01 * RNG.normal(size=STEPS)
    early, late = np.r_[TO_AND_FRO[:100], calm[100:]], np.r_[calm[:100], TO_AND_FRO[100:]]
    assert swing(early).correlation > -0.5
    assert swing(early).size < 0.02
    assert swing(late).correlation < -0.9


def test_half_of_the_run_is_told_by_steps():
    """A resumed run, and one whose losses were seen more often at first."""
    resumed = swing(TO_AND_FRO, steps=np.arange(1000, 1000 + STEPS))
    assert resumed == swing(TO_AND_FRO)
    sparse = np.r_[np.arange(60), np.arange(60, 60 + 3 * 140, 3)]
    assert swing(TO_AND_FRO, steps=sparse).error == pytest.approx(81**-0.5, rel=0.02)


def test_the_straight_line_is_taken_off_and_its_fall_told():
    found = swing(TO_AND_FRO + np.linspace(20, 0, STEPS))
    assert found.correlation == pytest.approx(-1, abs=0.02)
    assert found.size == pytest.approx(1.4826 * 0.25, rel=0.02)
    assert found.fall == pytest.approx(10, rel=0.02)
    assert swing(TO_AND_FRO + np.linspace(0, 20, STEPS)).fall == pytest.approx(-10, rel=0.02)


def test_independent_losses_have_the_error_told():
    found = [swing(RNG.normal(size=STEPS), loaders={"train": {"shuffled": False}}) for _ in range(300)]
    assert np.std([s.correlation for s in found]) == pytest.approx(found[0].error, rel=0.2)
    assert min(swing(RNG.normal(size=STEPS)).correlation for _ in range(100)) > -0.45


def test_noise_weakens_the_correlation():
    found = swing(TO_AND_FRO + 0.25 * RNG.normal(size=STEPS))
    assert found.correlation == pytest.approx(-0.5, abs=0.15)


@pytest.mark.parametrize(("places", "height"), [([130, 170], 10.0), ([195], 10.0), ([102, 195], -1e9), ([195], 1e9)])
def test_a_spike_does_not_hide_a_swing(places, height):
    """Nor does it tilt the straight line."""
    values = TO_AND_FRO.copy()
    values[places] = height
    found = swing(values)
    assert found.correlation < -0.4
    assert found.size == pytest.approx(1.4826 * 0.25, rel=0.3)
    assert abs(found.fall) < 0.3


@pytest.mark.parametrize("pattern", [[1, 1, 2], [1, 2, 2]])
def test_the_size_is_told_by_quartiles(pattern):
    """The median deviation from the median is nothing."""
    found = swing(np.resize(pattern, 2 * STEPS))
    assert found.size == pytest.approx(1 / 1.349, rel=0.05)
    assert found.correlation == pytest.approx(-0.5, abs=0.05)


def test_where_the_quartiles_coincide_losses_are_not_cut_to_them():
    assert swing(np.resize([1] * 5 + [2], 2 * STEPS)).correlation == pytest.approx(-0.2, abs=0.03)


def test_batches_in_a_fixed_order_are_compared_with_their_neighbours_only():
    fixed, free = {"train": {"shuffled": False}}, {"train": {"shuffled": True}}
    assert swing(wave(5), loaders=fixed).lag == 1
    assert swing(wave(5), loaders=fixed).correlation > 0.5
    assert swing(wave(5), loaders=free).lag == 5
    assert swing(wave(5), loaders={"train": {"shuffled": None}}).lag == 5
    assert swing(TO_AND_FRO, loaders=fixed).correlation < -0.9


def test_what_is_absent_is_left_out_and_what_is_not_finite_is_not_judged():
    values = TO_AND_FRO.copy()
    values[140:160] = np.nan
    assert swing(values).error == pytest.approx(80**-0.5)
    assert swing(values).correlation < -0.9
    values[150] = np.inf
    assert swing(values) is None
    assert swing(np.r_[np.inf, TO_AND_FRO[1:]]) is not None


def test_constant_losses_do_not_swing():
    found = swing(np.zeros(STEPS))
    assert (found.correlation, found.size, found.fall) == (0, 0, 0)


@pytest.mark.parametrize("scale", [1e-20, 1e12])
def test_the_unit_of_the_loss_does_not_matter(scale):
    noisy = TO_AND_FRO + 0.1 * RNG.normal(size=STEPS) + np.linspace(1, 0, STEPS)
    found, plain = swing(scale * noisy), swing(noisy)
    assert found.correlation == pytest.approx(plain.correlation, rel=1e-3)
    assert found.lag == plain.lag
    assert found.size == pytest.approx(scale * plain.size, rel=1e-3)
    assert found.fall == pytest.approx(scale * plain.fall, rel=1e-3)


@pytest.mark.parametrize("steps", [10_000, 40_000])
def test_of_a_long_run_the_last_losses_are_looked_at(steps):
    values = np.ones(steps)
    values[-MOST:] = np.resize(TO_AND_FRO, MOST)
    found = swing(values)
    assert found.error == pytest.approx(MOST**-0.5)
    assert found.correlation == pytest.approx(-1, abs=0.01)
    values = np.resize(TO_AND_FRO, steps)
    values[-MOST:] = 1.0
    assert swing(values).size < 1e-9
