"""The path of proximal steps: on lasso it leads to what sklearn finds, and the live model is left alone."""

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Lasso
from torch import nn

import trainwatch
from trained import split
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.proximal_path import SHARES, ProximalPath

X, _, Y, _ = split("diabetes", 0)
X = X - X.mean(0)
ALPHAS = (0.03, 0.1, 0.3)


def squared(model, batch):
    return F.mse_loss(model(batch[0]).flatten(), batch[1])


def path(model=None, kind=torch.optim.SGD, **changes):
    model = nn.Linear(10, 1) if model is None else model
    given = {"loss": squared, "batches": [(X, Y)], "l1": [2 * a for a in ALPHAS], **changes}
    return trainwatch.probes.sparsity_path(model, kind(model.parameters(), lr=0.05), **given)


def test_it_leads_to_the_zeros_of_lasso():
    """sklearn halves the mean squared error."""
    found = path(steps=400, l1=[2 * a for a in reversed(ALPHAS)])  # taken in rising order
    assert [p.l1 for p in found] == [2 * a for a in ALPHAS]
    for point, alpha in zip(found, ALPHAS, strict=True):
        lasso = Lasso(alpha, tol=1e-8).fit(X, Y)
        assert point.zeros == pytest.approx((lasso.coef_ == 0).mean())
        assert point.layers == {"weight": point.zeros}
        assert point.loss == pytest.approx(((lasso.predict(X) - Y.numpy()) ** 2).mean(), rel=1e-3)
        assert point.kept == 1.0 if point.zeros else math.isnan(point.kept)


def test_zeros_that_would_not_stay_are_told():
    model = nn.Linear(10, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    walk = ProximalPath(model, optimizer, {"weight": model.weight})
    walk.follow(lambda n: squared(model, (X, Y)).backward() or optimizer.step(), 1, {"weight": 100.0})
    losses = [lambda: squared(model, (X, Y))]
    assert walk.zeros() == ({"weight": 1.0}, 1.0)
    assert walk.kept(losses) == 1.0
    gradient = torch.autograd.grad(losses[0](), model.weight)[0].abs().flatten().sort().values
    walk._amounts = {"weight": float(gradient[3]) * 1.001}
    assert walk.kept(losses) == pytest.approx(0.4)


def test_coefficients_are_sought_where_weights_become_zero():
    """Of a quadratic the first guess is right about the order: more zeros under each."""
    torch.manual_seed(0)
    x = torch.randn(400, 30)
    y = x @ (torch.rand(30) * (torch.arange(30) % 3)) + 0.1 * torch.randn(400)
    model = nn.Linear(30, 1)
    points = path(model, batches=[(x, y)], l1=None, steps=500)
    assert len(points) == len(SHARES)
    assert [p.zeros for p in points] == pytest.approx(SHARES, abs=0.25)


def test_biases_frozen_weights_and_those_of_nobody_are_left_out():
    model = nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    model[1].weight.requires_grad_(False)
    optimizer = torch.optim.SGD([*model[0].parameters(), *model[1].parameters()], lr=0.05)
    (point,) = trainwatch.probes.sparsity_path(model, optimizer, loss=squared, batches=[(X, Y)], l1=[9.0], steps=50)
    assert list(point.layers) == ["0.weight"]
    assert point.zeros == 1.0


def test_the_live_model_its_optimiser_and_random_numbers_are_as_before():
    model = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    squared(model, (X, Y)).backward()
    optimizer.step()
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    state, moments = torch.get_rng_state(), optimizer.state[model[0].weight]["exp_avg"].clone()
    trainwatch.probes.sparsity_path(model, optimizer, loss=squared, batches=[(X, Y)], l1=[0.1], steps=3)
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    assert torch.equal(moments, optimizer.state[model[0].weight]["exp_avg"])
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert "l1" not in optimizer.param_groups[0]


BAD = {
    "no steps": ({"steps": 0}, ValueError, "steps must be a whole number, at least 1, got 0"),
    "half a step": ({"steps": 1.5}, ValueError, "got 1.5"),
    "no batches": ({"batches": []}, ValueError, "batches must hold at least one"),
    "nothing": ({"l1": [0.0]}, ValueError, "finite numbers above 0, got 0.0"),
    "a switch": ({"l1": [True]}, ValueError, "got True"),
    "infinite": ({"l1": [math.inf]}, ValueError, "got inf"),
    "little memory": ({"memory": 8}, CannotIsolate, "memory"),
    "an unknown optimiser": ({"kind": torch.optim.Rprop}, TypeError, "Rprop"),
}


@pytest.mark.parametrize(("changes", "kind", "text"), BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_named(changes, kind, text):
    with pytest.raises(kind, match=text):
        path(**changes)


def test_an_optimiser_of_other_weights_is_no_use():
    other = torch.optim.SGD(nn.Linear(3, 3).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="no trainable weight"):
        trainwatch.probes.sparsity_path(nn.Linear(10, 1), other, loss=squared, batches=[(X, Y)], l1=[0.1])
