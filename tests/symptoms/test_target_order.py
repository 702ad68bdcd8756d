import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.target_order import target_order

Y = np.random.default_rng(0).gamma(2.0, size=640)


def ordered(y, size=16, epochs=3, *, samples=640, shuffle=None, loader=True, drift=0.0):
    made = RunRecord()
    step = 0
    for epoch in range(epochs):
        seen = y if shuffle is None else shuffle.permutation(y)
        for batch in np.split(seen + drift * epoch, np.arange(size, len(y), size)):
            with np.errstate(invalid="ignore"):
                row = [batch.mean(), batch.var(), 0.0, batch.var(), len(batch)]
            made.append("target_moments", "mse_loss", step, row)
            step += 1
    made.set_fact("run", {"train_samples": samples})
    if loader:
        made.set_fact("loaders", {"train": {"batch_size": size}})
    return made


def test_sorted_targets_lie_between_batches():
    found = target_order(ordered(np.sort(Y)), "mse_loss")
    assert found.between > 0.9
    assert found.variance == pytest.approx(Y.var(), rel=1e-3)
    assert (found.batches, found.size, found.first_step) == (120, 16, 0)
    assert found.is_sorted
    assert found.climbs
    assert target_order(ordered(np.sort(Y)[::-1]), "mse_loss").climbs
    assert target_order(ordered(np.repeat([0.0, 1.0, 5.0], [200, 240, 200])), "mse_loss").climbs  # ties


@pytest.mark.parametrize("size", [2, 16, 64])
def test_a_shuffled_draw_leaves_nothing_beyond_chance(size):
    shares = []
    for seed in range(20):
        found = target_order(ordered(Y, size, shuffle=np.random.default_rng(seed)), "mse_loss")
        assert not found.is_sorted
        assert not found.climbs
        assert found.variance == pytest.approx(Y.var(), rel=0.1)
        shares.append(found.between / found.error)
    assert abs(np.mean(shares)) < 1
    assert np.std(shares) < 2


def test_the_last_batch_of_a_pass_does_not_count_for_its_size():
    even = ordered(Y, 21, shuffle=np.random.default_rng(0))  # 640 = 30 * 21 + 10
    assert target_order(even, "mse_loss").batches == 90


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_does_not_matter(scale):
    one, other = (target_order(ordered(np.sort(y)), "mse_loss") for y in (Y, scale * Y))
    assert other.between == pytest.approx(one.between, rel=1e-4)


@pytest.mark.parametrize(("samples", "known"), [(711, True), (712, False)])
def test_a_pass_has_ended_but_for_a_batch_that_was_dropped(samples, known):
    assert (target_order(ordered(np.sort(Y), epochs=1, samples=samples), "mse_loss") is not None) == known


def test_targets_that_drift_from_pass_to_pass_are_in_no_order():
    assert not target_order(ordered(Y, shuffle=np.random.default_rng(0), drift=5.0), "mse_loss").is_sorted


def test_a_wave_has_an_order_and_is_not_sorted():
    wave = np.sin(np.arange(640) / 60) + 0.3 * np.random.default_rng(0).normal(size=640)
    found = target_order(ordered(wave), "mse_loss")
    assert found.is_sorted
    assert not found.climbs


def test_few_batches_a_pass_do_not_climb():
    """Of two batches a pass one is always the higher."""
    assert not target_order(ordered(np.sort(Y), 320, epochs=20), "mse_loss").climbs


def test_without_a_loader_a_pass_is_over_when_the_same_batches_come_again():
    found = target_order(ordered(np.sort(Y), loader=False, samples=None), "mse_loss")
    known = target_order(ordered(np.sort(Y)), "mse_loss")
    assert found == known


@pytest.mark.parametrize(
    "made",
    [
        RunRecord(),
        ordered(Y, loader=False, shuffle=np.random.default_rng(0)),
        ordered(Y, samples=None, shuffle=np.random.default_rng(0)),
        ordered(Y, loader=False, epochs=1),
        ordered(Y, samples=10_000, shuffle=np.random.default_rng(0)),
        ordered(Y, size=1),
        ordered(np.full(640, 3.0)),
        ordered(np.r_[np.inf, Y[1:]]),
        ordered(Y[:64], epochs=1, samples=64),
    ],
    ids=[
        "nothing",
        "no loader",
        "size not known",
        "once",
        "no pass ended",
        "single",
        "constant",
        "infinite",
        "few batches",
    ],
)
def test_nothing_is_told(made):
    assert target_order(made, "mse_loss") is None


def test_constants_differ_by_rounding_alone():
    constant = np.repeat(np.random.default_rng(0).normal(0.3, 1e-9, 40), 16)
    assert target_order(ordered(constant), "mse_loss") is None
    assert target_order(
        ordered(np.sort(np.repeat(np.random.default_rng(0).normal(0.3, 1e-4, 40), 16))), "mse_loss"
    ).is_sorted
