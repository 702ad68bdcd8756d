"""Copies that are shaken leave a saddle, and gain nothing where there is none."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from benches import bench, blobs, in_batches, net, row
from trainwatch.probes import shaken as probe
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.shaken import DRAWS, SIZE, measure, shake
from trainwatch.symptoms.experiments import shaken

X, Y, *_ = blobs(n=384)
SEEDS = range(3)


def measured(model, rate=0.1, batches=None, **more):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    given = bench(model, in_batches(X, Y) if batches is None else batches, optimizer=optimizer, **more)
    measure(given)
    return given


def trained(model, steps, rate=0.1, x=X, y=Y):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for i in range(steps):
        rows = slice(32 * (i % 12), 32 * (i % 12) + 32)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return model


def quadrants(seed):
    """Classes that only a product of both inputs tells apart."""
    x = torch.randn(384, 2, generator=torch.Generator().manual_seed(seed))
    return x, (x.prod(1) > 0).long()


def begun(weight, bias):
    """All units of a layer begin alike: steps never tell them apart."""
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.fill_(weight if name.endswith("weight") else bias)
    return model


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weight", [0.0, 0.05])
def test_noise_frees_a_run_from_a_saddle(weight, seed):
    x, y = quadrants(seed)
    found = shaken(measured(trained(begun(weight, 0.0), 200, x=x, y=y), 0.5, in_batches(x, y)).record)
    assert found.lead > 0.1
    assert found.lead > 5 * found.error > 0
    assert found.still == pytest.approx(found.before, rel=0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_gains_nothing_where_a_net_has_learned(seed):
    torch.manual_seed(seed)
    found = shaken(measured(trained(net(6, 16, 3), 200)).record)
    assert found.before < 0.5
    assert found.lead < 0.01


def test_the_lowest_look_at_the_copy_that_was_left_alone_counts(monkeypatch):
    """Where steps are too long a copy wanders: its last look may be its worst."""
    looks = iter([1.0, 0.5, 0.3, 0.4, 0.6, 0.2, 0.25])
    monkeypatch.setattr(probe, "_look", lambda *_: next(looks) + np.array([0.0, 0.1, 0.0, -0.1]))
    before, still, *draws = row(measured(net(6, 16, 3)), "shaken_loss", "held")[2:]
    assert (before, still, *draws[::2]) == pytest.approx((1.0, 0.3, 0.2, 0.25))
    assert next(looks, None) is None


def test_the_worst_draw_counts_and_what_is_not_finite_is_no_answer():
    given = measured(net(6, 16, 3))
    steps, size, before, still, *draws = row(given, "shaken_loss", "held")
    assert (steps, size, len(draws)) == (200, pytest.approx(SIZE), 2 * DRAWS)
    found = shaken(given.record)
    assert (found.shaken, found.error) == max(zip(draws[::2], draws[1::2], strict=True))
    given.record.append("shaken_loss", "held", 101, [steps, size, before, still, math.nan, 0.1, 0.2, 0.1])
    assert shaken(given.record) is None


def test_steps_are_what_there_is_time_for():
    model = net(6, 16, 3)
    given = bench(model, in_batches(X, Y), optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    given.affords = 3 * 120 + probe.LOOKS
    measure(given)
    assert row(given, "shaken_loss", "held")[0] == 120


def test_neither_the_model_nor_its_optimiser_nor_random_numbers_change():
    model = net(6, 16, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    measured(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_noise_is_as_large_as_the_weights_or_as_usual_beginnings():
    model = nn.Sequential(nn.Linear(400, 300), nn.Linear(300, 400), nn.LayerNorm(400))
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        model[1].weight.zero_()
    model[1].bias.requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    shake(model, torch.Generator().manual_seed(0))
    moved = [float((p - q).detach().std()) for p, q in zip(model.parameters(), before, strict=True)]
    assert moved[0] == pytest.approx(SIZE * 2.0, rel=0.02)
    assert moved[2] == pytest.approx(SIZE / 300**0.5, rel=0.02)
    assert moved[1] == moved[3] == moved[4] == moved[5] == 0.0


def test_frozen_weights_stay_where_they_are():
    model = net(6, 16, 3)
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    shake(model, torch.Generator().manual_seed(0))
    assert torch.equal(before, model[0].weight)


def test_one_batch_cannot_judge_itself():
    with pytest.raises(CannotIsolate, match="one batch is held: steps from it cannot be judged on another"):
        measured(net(6, 16, 3), batches=in_batches(X, Y)[:1])


def test_a_batch_of_few_samples_takes_no_longer_step_than_others():
    """The last batch of an epoch: as often as it would make up a step, the loss counts once."""
    model = net(6, 16, 3)
    batches = [*in_batches(X[:64], Y[:64]), *in_batches(X[64:68], Y[64:68])]
    given = bench(model, batches, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    given._samples_per_step = 30.0
    assert [given.loss_factor(batch) for batch in batches] == [1.0, 1.0, 1.0]
    given._samples_per_step = 64.0
    assert [given.loss_factor(batch) for batch in batches] == [2.0, 2.0, 2.0]
