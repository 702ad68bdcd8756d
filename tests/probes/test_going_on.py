import pytest
import torch

from benches import bench, blobs, in_batches, net, row
from trainwatch.probes import going_on
from trainwatch.probes.isolation import CannotIsolate

X, Y, XV, YV = blobs()
NAMES = ("steps", "before", "after", "error", "val_before", "val_after", "val_error")


def tried(lr=1e-3, model=None, rates=None, step=100, affords=None):
    model = model or net(6, 16, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr)
    given = bench(model, in_batches(X, Y), in_batches(XV, YV), optimizer, step=step)
    for at, rate in enumerate(rates or ()):
        given.record.append("lr", "default/0", at, rate)
    given.affords = affords or given.affords
    going_on.measure(given)
    return dict(zip(NAMES, row(given, "going_on", "held"), strict=True))


def test_a_copy_that_has_much_to_learn_gains():
    torch.manual_seed(0)
    found = tried(0.05)
    assert found["val_before"] - found["val_after"] > 5 * found["val_error"] > 0
    assert found["before"] > found["after"]


def test_a_copy_that_has_learned_all_gains_nothing():
    torch.manual_seed(0)
    model = net(6, 16, 3)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(X), Y).backward()
        optimizer.step()
    found = tried(1e-3, model)
    assert abs(found["val_before"] - found["val_after"]) < 0.02


@pytest.mark.parametrize(("step", "steps"), [(10, 8), (200, 100), (10_000, 300)])
def test_it_takes_half_as_many_steps_again_within_bounds(step, steps):
    assert tried(step=step)["steps"] == steps


def test_it_takes_no_more_than_there_is_time_for():
    assert tried(step=1000, affords=60)["steps"] == 60


def test_without_time_it_is_refused():
    with pytest.raises(CannotIsolate, match="no time"):
        tried(affords=1)


def test_a_rate_that_was_brought_down_goes_through_another_cycle():
    torch.manual_seed(0)
    model = net(6, 16, 3)
    still, again = (tried(1e-6, model, rates) for rates in ([1e-6], [0.05, 0.02, 1e-6]))
    assert still["val_before"] - still["val_after"] < 1e-3
    assert again["val_before"] - again["val_after"] > 0.1
    assert (still["steps"], again["steps"]) == (50, 100)


def test_without_validation_it_is_refused():
    model = net(6, 16, 3)
    with pytest.raises(CannotIsolate, match="no validation"):
        going_on.measure(bench(model, in_batches(X, Y), (), torch.optim.SGD(model.parameters(), 0.1)))


def test_the_run_is_as_it_was():
    model = net(6, 16, 3)
    state, weights = torch.get_rng_state(), [p.clone() for p in model.parameters()]
    tried(0.05, model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
