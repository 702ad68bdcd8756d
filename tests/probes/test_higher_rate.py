import pytest
import torch

from benches import bench, blobs, in_batches, net, row
from trainwatch.probes import higher_rate
from trainwatch.probes.isolation import CannotIsolate

X, Y, XV, YV = blobs()
NAMES = ("factor", "before", "usual", "higher", "error", "before_error",
         "val_before", "val_usual", "val_higher", "val_error", "val_before_error", "steps")  # fmt: skip


def tried(lr, step=100, model=None):
    torch.manual_seed(0)
    model = model or net(6, 32, 3)
    given = bench(model, in_batches(X, Y), in_batches(XV, YV), torch.optim.SGD(model.parameters(), lr), step=step)
    higher_rate.measure(given)
    return dict(zip(NAMES, row(given, "higher_rate", "held"), strict=True))


def test_where_steps_are_short_five_times_the_rate_is_better():
    found = tried(2e-3)
    assert found["factor"] == 5
    for part in ("", "val_"):
        assert found[part + "higher"] < found[part + "usual"] - 5 * found[part + "error"]
        assert found[part + "higher"] < found[part + "before"] - 5 * found[part + "before_error"]


def test_where_steps_are_long_it_is_not():
    found = tried(2.0)
    assert found["val_higher"] > found["val_usual"] - 2 * found["val_error"]


def test_copies_take_as_many_steps_as_the_run_within_bounds():
    short, long = tried(1e-2, step=10), tried(1e-2, step=250)
    assert long["usual"] < short["usual"] == tried(1e-2, step=60)["usual"]
    assert tried(1e-2, step=600)["usual"] == tried(1e-2, step=9000)["usual"]
    assert (short["steps"], long["steps"]) == (60, 250)


def test_without_validation_it_is_refused():
    model = net(6, 16, 3)
    with pytest.raises(CannotIsolate, match="no validation"):
        higher_rate.measure(bench(model, in_batches(X, Y), (), torch.optim.SGD(model.parameters(), 0.1)))


def test_the_run_is_as_it_was():
    model = net(6, 16, 3)
    weights = [p.clone() for p in model.parameters()]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    tried(0.05, model=model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
