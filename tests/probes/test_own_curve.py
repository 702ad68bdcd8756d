import numpy as np
import pytest
import torch

from benches import bench, blobs, held, in_batches, net, row
from trainwatch.probes import own_curve
from trainwatch.probes.isolation import CannotIsolate

X, Y, XV, YV = blobs(200, classes=4, features=12)
NAMES = ("samples", "half", "whole", "error", "net", "scored")


def measured(train, val=None, model=None, **facts):
    model = model or net(12, 32, 4)
    given = bench(model, train, in_batches(XV, YV) if val is None else val, torch.optim.Adam(model.parameters(), 1e-2),
                  **facts)  # fmt: skip
    own_curve.measure(given)
    return dict(zip(NAMES, row(given, "own_curve", "held"), strict=True))


def test_more_samples_are_worth_something():
    found = measured(in_batches(X[:40], Y[:40], 10))
    assert (found["samples"], found["scored"]) == (40, 200)
    assert found["whole"] < found["half"] < np.log(4)
    assert 0 < found["error"] < 0.5


def test_where_targets_are_chance_they_are_worth_nothing():
    y = torch.as_tensor(np.random.default_rng(0).integers(0, 4, 200))
    found = measured(in_batches(X, y), in_batches(XV, y))
    assert found["half"] - found["whole"] < 3 * found["error"]


def test_a_sample_that_is_held_twice_is_one_and_in_one_half():
    found = measured([held(X[:40], Y[:40]), held(X[:40].flip(0), Y[:40].flip(0))])
    assert found["samples"] == 40


def test_sequences_of_classes_need_no_table():
    words = torch.as_tensor(np.random.default_rng(0).integers(0, 5, (60, 7)))
    model = torch.nn.Sequential(torch.nn.Embedding(5, 8), torch.nn.Linear(8, 3), Turned())
    train, val = ([held(w, w % 3) for w in part.split(10)] for part in (words[:40], words[40:]))
    found = measured(train, val, model)
    assert found["samples"] == 40
    assert found["whole"] < 0.2


class Turned(torch.nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


class Whole:
    """A batch that cannot be divided."""

    samples = 40

    def losses(self, model):
        return model(X[:40]).mean().reshape(1)


REFUSED = {
    "few": ([held(X[:10], Y[:10])], "fewer than 12"),
    "whole": ([Whole()], "cannot be told apart"),
    "flattened": ([held(X[:40].reshape(20, 2, 12), Y[:20].repeat_interleave(2))], "cannot be told apart"),
    "single": ([held(X[i : i + 1], Y[i : i + 1]) for i in range(16)], "too small"),
}


@pytest.mark.parametrize(("train", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(train, reason):
    with pytest.raises(CannotIsolate, match=reason):
        measured(train)


def test_without_validation_it_is_refused():
    with pytest.raises(CannotIsolate, match="no validation"):
        measured(in_batches(X, Y), [])


def test_it_is_the_same_each_time_and_leaves_the_run_as_it_was():
    torch.manual_seed(0)
    model, train = net(12, 32, 4), in_batches(X, Y)
    state, weights = torch.get_rng_state(), [p.clone() for p in model.parameters()]
    assert measured(train, model=model) == measured(train, model=model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert torch.equal(train[0].args[0], X[:32])
