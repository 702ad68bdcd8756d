from dataclasses import replace

import numpy as np
import pytest
import torch

from benches import bench, held, in_batches, net
from trainwatch.capture.batches import held_step
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.tables import classes_of, rows_of, table_of

X, Y = torch.arange(120.0).reshape(40, 3), torch.arange(40) % 2


def table(batches, kind="train", most=100, **facts):
    given = bench(net(3, 2), batches if kind == "train" else [held(X, Y)], batches, **facts)
    return table_of(given, kind, most)


def test_a_sample_that_is_held_twice_is_there_once():
    first, second = held(X[:20], Y[:20]), replace(held(X[10:30], Y[10:30]), step=5)
    found = table([first, second])
    assert len(found) == 30
    np.testing.assert_array_equal(found.x, X[:30].numpy())
    np.testing.assert_array_equal(found.step, np.repeat([0, 5], [20, 10]))
    np.testing.assert_array_equal(found.place, [*range(20), *range(10, 20)])


@pytest.mark.parametrize(("batches", "known"), [(4, True), (9, False)])
def test_validation_samples_have_their_place_in_the_pass(batches, known):
    facts = {"validation": {"other": {"batches": 9}, "val": {"primary": True, "batches": batches}}}
    found = table(in_batches(X, Y, 10), "val", **facts)
    np.testing.assert_array_equal(found.place, range(40) if known else [-1] * 40)


def test_of_a_long_pass_the_first_batches_are_held():
    facts = {"validation": {"val": {"primary": True, "batches": 99}}}
    assert table(in_batches(X, Y, 2)[:16], "val", **facts).place[-1] == 31
    assert table(in_batches(X, Y, 2)[:12], "val", **facts).place[-1] == -1


def test_there_are_no_more_rows_than_that():
    found = table([held(X, Y)], most=15)
    assert len(found) == 15
    assert len(np.unique(found.place)) == 15
    np.testing.assert_array_equal(found.x[:, 0] / 3, found.place)


def test_the_two_parts_of_a_trainers_batch_are_inputs_and_targets():
    x, y = rows_of(held_step(3, (X[:, None], Y), 0))
    np.testing.assert_array_equal(x, X.numpy())
    np.testing.assert_array_equal(y, Y.numpy())


NOT_ROWS = {
    "tokens": (held(Y[:, None], Y), "not one tensor of numbers"),
    "flat": (held(X[:, 0], Y), "one class or number"),
    "many targets": (held(X, X, "mse_loss"), "one class or number"),
    "wide": (held(torch.zeros(4, 5000), Y[:4]), "4096 features"),
    "dictionary": (held_step(0, {"x": X, "y": Y}, 0), "not one tensor of numbers"),
}


@pytest.mark.parametrize(("batch", "reason"), NOT_ROWS.values(), ids=NOT_ROWS)
def test_what_is_no_table_is_refused(batch, reason):
    with pytest.raises(CannotIsolate, match=reason):
        rows_of(batch)


def classes(batch):
    return classes_of(bench(net(3, 2), [batch]), "train", 100)


def test_labels_that_the_loss_ignores_are_left_out():
    assert len(classes(held(X, torch.where(torch.arange(40) < 8, -100, Y)))) == 32


def test_of_two_classes_the_targets_may_be_numbers():
    found = classes(held(X, Y.float()[:, None], "binary_cross_entropy_with_logits"))
    assert found.y.dtype == np.int64


@pytest.mark.parametrize("function", ["mse_loss", "binary_cross_entropy_with_logits", "cross_entropy", ""])
def test_one_hot_targets_are_classes(function):
    named = torch.arange(40) % 3
    found = classes(held(X, torch.nn.functional.one_hot(named).float(), function))
    np.testing.assert_array_equal(found.y, named.numpy())


@pytest.mark.parametrize("row", [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
def test_several_labels_none_or_shares_are_no_classes(row):
    y = torch.nn.functional.one_hot(torch.arange(40) % 3).float()
    y[7] = torch.tensor(row)
    with pytest.raises(CannotIsolate, match="one class or number"):
        classes(held(X, y, "mse_loss"))
    with pytest.raises(CannotIsolate, match="some targets are one-hot"):
        classes_of(bench(net(3, 2), in_batches(X, y, 5)), "train", 100)
