import numpy as np
import pytest
import torch

from benches import bench, blobs, held, in_batches, net, row
from trainwatch.probes import learning_curve
from trainwatch.probes.isolation import CannotIsolate

X, Y, XV, YV = blobs(200)
MODEL = net(6, 8, 3)


def measured(train, val, model=MODEL):
    given = bench(model, train, val)
    learning_curve.measure(given)
    return row(given, "learning_curve", "forest")


def test_more_samples_make_a_better_forest():
    samples, quarter, half, whole, error, net_loss, guess, scored = measured(in_batches(X, Y), in_batches(XV, YV))
    assert (samples, scored) == (200, 200)
    assert whole < half < quarter < guess
    assert guess == pytest.approx(np.log(3), abs=0.05)
    assert 0 < error < half - whole + 0.1
    with torch.no_grad():
        assert net_loss == pytest.approx(float(torch.nn.functional.cross_entropy(MODEL(XV), YV)), rel=1e-4)


def test_where_labels_are_chance_more_do_not_help():
    rng = np.random.default_rng(0)
    y, yv = (torch.as_tensor(rng.integers(0, 3, 200)) for _ in range(2))
    _, _, half, whole, error, *_ = measured(in_batches(X, y), in_batches(XV, yv))
    assert half - whole < 3 * error


def test_numbers_are_predicted_as_well():
    targets = [part.sum(1, keepdim=True) for part in (X, XV)]
    loss = {"function": "mse_loss"}
    _, quarter, _, whole, _, _, guess, _ = measured(
        in_batches(X, targets[0], **loss), in_batches(XV, targets[1], **loss), net(6, 1)
    )
    assert whole < quarter < guess
    assert guess == pytest.approx(float(targets[1].var()), rel=0.1)


def test_a_sample_that_is_held_twice_counts_once():
    assert measured([held(X[:50], Y[:50])] * 3, in_batches(XV, YV))[0] == 50


def test_few_samples_are_refused():
    with pytest.raises(CannotIsolate, match="fewer than 24"):
        measured([held(X[:20], Y[:20])], in_batches(XV, YV))


def test_it_is_the_same_each_time_and_draws_no_random_number_of_the_run():
    given = in_batches(X, Y), in_batches(XV, YV)
    state = torch.get_rng_state()
    assert measured(*given) == measured(*given)
    assert torch.equal(state, torch.get_rng_state())
