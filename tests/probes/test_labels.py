import numpy as np
import pytest
import torch

from benches import bench, blobs, held, in_batches, net
from trainwatch.probes import labels
from trainwatch.probes.isolation import CannotIsolate

X, Y, XV, YV = blobs(300)


MODEL = net(6, 8, 3)


def measured(train, val=()):
    given = bench(MODEL, train, val)
    labels.measure(given)
    tables = {k: given.record.series("held_labels", k).values[-1] for k in given.record.keys("held_labels")}
    return {k: table[~np.isnan(table[:, 0])] for k, table in tables.items()}


def wrong(y, rows):
    y = y.clone()
    y[rows] = (y[rows] + 1) % 3
    return y


def test_a_wrong_label_is_seen_by_the_others():
    rows = torch.arange(0, 300, 30)
    found = measured(in_batches(X, wrong(Y, rows)), in_batches(XV, wrong(YV, rows + 1)))
    for kind, truth, planted in (("train", Y, rows), ("val", YV, rows + 1)):
        table = found[kind]
        assert table.shape == (300, 6)
        right = table[:, 3] == truth.numpy()
        assert right.mean() > 0.9
        assert right[planted].mean() > 0.7
        np.testing.assert_array_equal(np.flatnonzero(table[:, 2] != truth.numpy()), planted)


def test_what_is_said_of_a_sample_does_not_rest_on_its_own_label():
    """Labels drawn at random cannot be predicted by samples that were left out."""
    y = torch.as_tensor(np.random.default_rng(0).integers(0, 3, 300))
    table = measured(in_batches(X, y))["train"]
    assert (table[:, 2] == table[:, 3]).mean() < 0.45


def test_validation_samples_that_are_trained_on_are_left_out():
    """A twin among the others would tell the label, whatever it is."""
    y = torch.as_tensor(np.random.default_rng(0).integers(0, 3, 300))
    found = measured(in_batches(X, y), in_batches(torch.cat([X[:100], XV[:50]]), torch.cat([y[:100], YV[:50]])))
    assert len(found["val"]) == 50
    assert set(measured(in_batches(X, y), in_batches(X[:100], y[:100]))) == {"train"}


def test_as_many_looks_as_there_are_fit_into_one_series():
    given = bench(MODEL, in_batches(X[:100], Y[:100]))
    labels.measure(given)
    more = bench(MODEL, in_batches(X, Y))
    more.record = given.record
    labels.measure(more)
    assert len(given.record.series("held_labels", "train")) == 2


def test_votes_are_shares():
    table = measured(in_batches(X, Y))["train"]
    agree = table[:, 2] == table[:, 3]
    np.testing.assert_array_equal(table[agree, 4], table[agree, 5])
    assert (table[:, 4] >= table[:, 5]).all()
    assert ((table[:, 4:] >= 0) & (table[:, 4:] <= 1)).all()


def test_it_is_the_same_each_time_and_draws_no_random_number_of_the_run():
    given = in_batches(X, Y), in_batches(XV, YV)
    state, drawn = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first, second = measured(*given), measured(*given)
    np.testing.assert_array_equal(first["train"], second["train"])
    assert torch.equal(state, torch.get_rng_state())
    assert drawn == np.random.get_state()[1].tolist()


REFUSED = {
    "few": ([held(X[:50], Y[:50])], "fewer than 60"),
    "the same ones": ([held(X[:40], Y[:40])] * 3, "fewer than 60"),
    "one class": ([held(X, torch.zeros(300, dtype=torch.long))], "two classes or more"),
    "numbers": ([held(X, Y.float(), "mse_loss")], "not classes"),
    "many": ([held(X, torch.arange(300) % 70)], "more than 64 classes"),
    "shares": ([held(X, torch.full((300,), 0.3), "binary_cross_entropy")], "shares of two classes"),
}


@pytest.mark.parametrize(("train", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_judged_is_left_alone(train, reason):
    with pytest.raises(CannotIsolate, match=reason):
        measured(train)
