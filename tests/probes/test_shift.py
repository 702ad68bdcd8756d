import numpy as np
import pytest
import torch

from benches import bench, blobs, held, in_batches, net, row
from trainwatch.probes import shift
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.symptoms.shift import input_shift

X, Y, XV, YV = blobs(250)
MODEL = net(6, 8, 3)


def measured(x, y, xv, yv):
    given = bench(MODEL, in_batches(x, y), in_batches(xv, yv))
    shift.measure(given)
    return given


def found(x, xv):
    return input_shift(measured(x, Y, xv, YV).record)


def test_a_random_split_cannot_be_told():
    for seed in range(3):
        x, _, xv, _ = blobs(250, seed=seed)
        apart = found(x, xv)
        assert apart.told.low < 0.55
        assert apart.further.low < 0.52


def test_what_was_moved_is_told_and_named():
    moved = XV.clone()
    moved[:, 4] += 3
    apart = found(X, moved)
    assert apart.told.low > 0.8
    assert apart.further.low > 0.6
    feature, _, before, after = apart.features[0]
    assert feature == 4
    assert after - before == pytest.approx(3, abs=0.6)


def test_what_is_augmented_is_told_and_lies_no_further_off():
    apart = found(X + 1.5 * torch.randn(X.shape, generator=torch.Generator().manual_seed(0)), XV)
    assert apart.told.low > 0.55
    assert apart.further.auc < 0.5


def test_units_do_not_matter():
    units = torch.tensor([1000.0, 1, 1, 1, 0.001, 1])
    moved = XV + 0.7
    one, other = found(X, moved), found(X * units, moved * units)
    assert one.told.auc == pytest.approx(other.told.auc, abs=0.02)
    assert one.further.auc == pytest.approx(other.further.auc, abs=1e-3)


MOVED = {
    "an offset": lambda x: x + 2.0,
    "a factor": lambda x: 3.0 * x,
    "a factor on standardised features": lambda x: 2.0 * (x - XV.mean(0)),
    "some features": lambda x: x + torch.tensor([2.0, 0, 0, 2.0, 0, 0]),
    "in another unit": lambda x: 1000.0 * x + 5.0,
}


@pytest.mark.parametrize("moved", MOVED.values(), ids=MOVED)
def test_what_was_moved_or_scaled_feature_by_feature_cannot_be_told_once_it_is_aligned(moved):
    apart = found(X, moved(XV))
    assert apart.told.low > 0.7
    assert apart.aligned.auc < 0.6


def test_samples_of_another_place_are_told_though_each_feature_is_aligned():
    place = X[:, 0] + X[:, 1] + X[:, 2] > (X[:, 0] + X[:, 1] + X[:, 2]).median()
    given = bench(MODEL, in_batches(X[~place], Y[~place]), in_batches(X[place], Y[place]))
    shift.measure(given)
    assert input_shift(given.record).aligned.auc > 0.65


def test_what_cannot_be_told_apart_is_not_aligned():
    assert found(X, XV).aligned is None


def test_features_of_few_values_and_of_one_are_no_trouble():
    x, xv = ((part > 0).float() for part in (X, XV))
    x[:, 5] = xv[:, 5] = 1.0
    apart = found(x + 0.01 * torch.randn(x.shape), xv + 0.01 * torch.randn(x.shape) + 3.0)
    assert apart.aligned.auc < 0.6


def test_a_sample_is_not_its_own_neighbour():
    rows = np.array(row(measured(X, Y, XV, YV), "held_shift", "train"))
    assert (rows[:250, 2] > 0).all()
    assert np.isnan(rows[250:]).all()


def test_few_samples_are_refused():
    given = bench(MODEL, [held(X[:20], Y[:20])], in_batches(XV, YV))
    with pytest.raises(CannotIsolate, match="fewer than 30"):
        shift.measure(given)


def test_more_of_one_kind_is_no_obstacle():
    apart = input_shift(measured(X[:40], Y[:40], XV, YV).record)
    assert apart.told.low < 0.6
    assert (apart.train, apart.val) == (40, 250)


def test_it_draws_no_random_number_of_the_run():
    state, drawn = torch.get_rng_state(), np.random.get_state()[1].tolist()
    measured(X, Y, XV, YV)
    assert torch.equal(state, torch.get_rng_state())
    assert drawn == np.random.get_state()[1].tolist()


@pytest.mark.parametrize("kind", ["one_hot", "grades"])
def test_targets_of_zeros_and_ones_are_compared_within_alike_ones(kind):
    """Classes shared out otherwise are no shift, whatever they are written as; other inputs are."""

    def written(y):
        if kind == "one_hot":
            return torch.nn.functional.one_hot(y, 3).float()
        return (y[:, None] > torch.arange(2)).float()

    some = torch.cat([torch.where(YV == 0)[0], torch.where(YV > 0)[0][:60]])
    given = measured(X, written(Y), XV[some], written(YV[some]))
    assert input_shift(given.record).told.low < 0.55
    moved = XV[some] + torch.tensor([0, 0, 0, 0, 3.0, 0])
    assert input_shift(measured(X, written(Y), moved, written(YV[some])).record).told.low > 0.8
