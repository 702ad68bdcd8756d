"""Copies that go on at a lower learning rate, where calculus tells where they get to."""

import math

import pytest
import torch
from torch import nn

from benches import bench, blobs, in_batches, net, row
from trainwatch.containment import Containment
from trainwatch.probes import lower_rate
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.rounds import Probes
from trainwatch.rules.base import ProbeRequest

X, Y, XV, YV = blobs()
NAMES = ("share", "present", "lower", "error", "val_present", "val_lower", "val_error")


class Edge(nn.Module):
    """One weight w whose loss is |w|: steps longer than the way to 0 leap from one wall to the other for ever."""

    def __init__(self, start=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([start]))

    def forward(self, x):
        return self.w.abs() * x


def targets(n):
    return torch.zeros(n)


def measured(model, optimizer, train, val=(), *, excess=1.0, step=100, at=100):
    given = bench(model, train, val, optimizer, step=step)
    given.record.append("sharpness", "held", at, [2.0 * excess, 0.0, 2.0, 5, 0.1])
    lower_rate.measure(given)
    return dict(zip(NAMES, row(given, "lower_rate", "held"), strict=True))


def between_walls(rate=0.3, **more):
    """Half a step off the floor, where each step leads to the same height of the other wall."""
    x, model = torch.ones(64), Edge(rate / 2)
    batches = in_batches(x, targets(64), 16, function="l1_loss")
    return measured(model, torch.optim.SGD(model.parameters(), lr=rate), batches, batches[:2], **more)


def test_a_third_of_the_rate_swings_at_a_third_of_the_height():
    found = between_walls()
    assert found["share"] == pytest.approx(1 / 3)
    assert found["present"] == found["val_present"] == pytest.approx(0.15, rel=1e-3)
    assert found["lower"] == found["val_lower"] == pytest.approx(0.05, rel=1e-2)
    assert found["error"] == pytest.approx(0.0, abs=1e-6), "all samples are alike"


def test_both_sides_of_a_swing_are_looked_at():
    """A third of the way off the floor the loss is 0.1 before odd steps and 0.2 before even ones."""
    model = Edge(0.1)
    batches = in_batches(torch.ones(64), targets(64), 16, function="l1_loss")
    found = measured(model, torch.optim.SGD(model.parameters(), lr=0.3), batches)
    assert found["present"] == pytest.approx(0.15, rel=1e-3)
    assert math.isnan(found["val_present"])


def test_rates_are_those_of_each_group_and_the_state_goes_along(monkeypatch):
    model = net(6, 8, 3)
    groups = [{"params": model[0].parameters(), "lr": 0.3}, {"params": model[3].parameters(), "lr": 0.03}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()
    given, seen = bench(model, in_batches(X, Y), optimizer=optimizer), []
    given.record.append("sharpness", "held", 100, [2.0, 0.0, 2.0, 5, 0.1])

    def train_step(batch, model, optimizer):
        seen.append(([g["lr"] for g in optimizer.param_groups], len(optimizer.state)))

    monkeypatch.setattr(given, "train_step", train_step)
    lower_rate.measure(given)
    assert seen[0] == ([0.3, 0.03], 4)
    assert seen[lower_rate.FURTHER][0] == pytest.approx([0.1, 0.01])
    assert len(seen) == 2 * lower_rate.FURTHER


def test_losses_are_those_in_evaluation_mode():
    """At a rate of 0 nothing changes, and dropout would show."""
    model = net(6, 32, 3, dropout=0.9)
    found = measured(model, torch.optim.SGD(model.parameters(), lr=0.0), in_batches(X, Y), in_batches(XV, YV))
    with torch.no_grad():
        model.eval()
        assert found["present"] == pytest.approx(float(nn.functional.cross_entropy(model(X), Y)), rel=1e-4)
    assert found["lower"] == found["present"]
    assert found["val_lower"] == found["val_present"]


def test_the_error_is_that_of_the_difference_over_samples():
    """|w| times inputs that differ: so does what each sample gains."""
    x, model = torch.arange(1.0, 65.0) / 32, Edge(0.15)
    batches = in_batches(x, targets(64), 64, function="l1_loss")
    found = measured(model, torch.optim.SGD(model.parameters(), lr=0.3 / float(x.mean())), batches)
    gain = found["present"] - found["lower"]
    assert found["error"] == pytest.approx(gain * float(x.std() / x.mean()) / 8, rel=1e-2)


@pytest.mark.parametrize("more", [{"excess": 0.49}, {"at": 60}], ids=["far within", "of an earlier step"])
def test_no_time_is_spent_where_steps_are_not_known_to_be_long(more):
    reason = "far within" if "excess" in more else "not measured before"
    with pytest.raises(CannotIsolate, match=reason):
        between_walls(**more)
    assert between_walls(excess=0.51)


def test_of_both_probes_the_curvature_is_measured_first():
    """As the rule asks for them."""
    model = net(6, 8, 3)
    given = bench(model, in_batches(X, Y), (), torch.optim.SGD(model.parameters(), lr=1e3))
    probes = Probes("auto", Containment(lambda: 0.0, lambda part, error: None, True))
    wishes = [ProbeRequest("lower_rate", priority=0.35), ProbeRequest("sharpness", priority=0.4)]
    probes.run(lambda: wishes, given, 10.0)
    assert not given.record.has("lower_rate"), "it waits for the last round"
    probes.run(lambda: wishes, given, 10.0, last=True)
    assert given.record.has("lower_rate")


def test_model_optimiser_and_random_numbers_are_left_alone():
    model = net(6, 32, 3, dropout=0.5, norm=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    moments = [v["exp_avg"].clone() for v in optimizer.state.values()]
    measured(model, optimizer, in_batches(X, Y), in_batches(XV, YV))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(v["exp_avg"], m) for v, m in zip(optimizer.state.values(), moments, strict=True))
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert torch.equal(state, torch.get_rng_state())
