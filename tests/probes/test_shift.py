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


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 2.0), (3.0, 0.0), (0.5, -1.0)])
@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_a_change_that_all_features_share_leaves_nothing(factor, offset, unit):
    apart = found(unit * X, unit * (factor * XV + offset))
    assert apart.factor == pytest.approx(factor, rel=0.15)
    assert apart.offset == pytest.approx(unit * offset, rel=0.2, abs=0.3 * unit)
    assert apart.left < 0.1


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_scale_is_a_change_that_all_features_share_where_their_means_are_zero(factor):
    x, xv = X - X.mean(0), XV - XV.mean(0)
    assert found(x, factor * xv).left < 0.1


def test_other_samples_are_no_change_that_all_features_share():
    elsewhere = XV.clone()
    elsewhere[:, :2] += 3
    assert found(X, elsewhere).left > 0.8


def test_features_that_never_vary_tell_nothing():
    assert np.isnan(shift.common_change(np.ones((40, 3)), np.zeros((40, 3)))).all()


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
