"""Rate times sharpness: the limit by stepping on quadratics, the eigenvalue by whole Hessians."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benches import bench, blobs, in_batches, net
from trainwatch.probes.curvature import Hessian
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.sharpness import known, measure
from trainwatch.probes.stability import steps_of
from trainwatch.symptoms.sharpness import sharpness

OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "damped": (torch.optim.SGD, {"momentum": 0.8, "dampening": 0.5}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {}),
    "adam, short memory": (torch.optim.Adam, {"betas": (0.5, 0.9)}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.0}),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "rmsprop, momentum": (torch.optim.RMSprop, {"momentum": 0.7}),
    "rmsprop, centred": (torch.optim.RMSprop, {"centered": True}),
}
LIMITS = {"sgd": 2.0, "momentum": 3.8, "damped": 7.2, "nesterov": 3.8 / 2.8, "adam": 38.0, "rmsprop": 2.0}
AVERAGES = ("exp_avg_sq", "square_avg", "grad_avg")  # of which the preconditioner is made


def settled(kind, options, lr=0.1):
    """An optimiser of two weights whose averages are filled, and its state besides momentum."""
    weights = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    optimizer = kind([weights], lr=lr, **options)
    generator = torch.Generator().manual_seed(0)
    for n in range(2000):
        noise = torch.randn(2, generator=generator, dtype=torch.float64)
        weights.grad = (1 + noise) * torch.tensor([3.0, 0.2]) * (3 if n < 500 else 1)
        optimizer.step()
    return weights, optimizer


def held_back(optimizer, state, kept):
    """Put the averages of the preconditioner to where the coming step brings them back to what they were."""
    group = optimizer.param_groups[0]
    keeps = group["betas"][1] if "betas" in group else group.get("alpha", 1.0)
    for name in AVERAGES:
        if name in kept:
            state[name].copy_(kept[name] / keeps)
    if "step" in kept:
        state["step"].copy_(kept["step"] - 1)


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("share", [0.97, 1.03])
def test_steps_shrink_within_the_limit_and_grow_beyond_it(kind, options, share):
    """On a quadratic whose curvature is so many times the limit, with the preconditioner held as it is."""
    weights, optimizer = settled(kind, options)
    steps, state = steps_of(optimizer), optimizer.state[weights]
    curvature = share * steps.threshold / steps.factors[0]
    kept = {name: value.clone() for name, value in state.items() if value is not None}
    for name in {"momentum_buffer", "exp_avg"} & set(kept):
        state[name].zero_()
    with torch.no_grad():
        weights.fill_(1e-12)  # so small that its gradients leave the averages as they are
    sizes = []
    for _ in range(60):
        held_back(optimizer, state, kept)
        weights.grad = curvature * weights.detach()
        optimizer.step()
        sizes.append(float(weights.detach().abs().max()))
    grown = max(sizes[-10:]) / max(sizes[20:30])
    assert (grown > 1.05) if share > 1 else (grown < 0.95)


def test_averages_that_are_not_filled_yet_are_corrected():
    weights = nn.Parameter(torch.tensor([1.0, 1.0]))
    optimizer = torch.optim.Adam([weights], lr=0.1)
    weights.grad = torch.tensor([3.0, -0.2])
    optimizer.step()
    (factors,) = steps_of(optimizer).factors
    np.testing.assert_allclose(factors, [0.1 / (0.1 * 3.0), 0.1 / (0.1 * 0.2)], rtol=1e-4)


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_those_of_the_papers(name):
    kind, options = OPTIMIZERS[name]
    assert steps_of(settled(kind, options)[1]).threshold == pytest.approx(LIMITS[name])


def trained(kind, options, n=40, lr=0.01):
    x, y, _, _ = blobs()
    torch.manual_seed(0)
    model = net(6, 5, 3)
    optimizer = kind(model.parameters(), lr=lr, **options)
    for _ in range(n):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, optimizer, in_batches(x, y)


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_eigenvalue_is_that_of_the_whole_matrix(kind, options):
    model, optimizer, batches = trained(kind, options)
    before = [p.clone() for p in model.parameters()]
    given = bench(model, batches, optimizer=optimizer)
    measure(given)
    found = sharpness(given.record)
    parameters = list(model.parameters())
    hessian = Hessian([lambda b=b: b.loss(model) for b in batches], parameters, memory=0)
    whole = torch.stack([hessian(row) for row in torch.eye(hessian.size)]).double()
    factors = torch.cat([f.reshape(-1) for f in steps_of(optimizer).factors]).double()
    true = np.linalg.eigvals((factors[:, None] * whole).numpy()).real.max()
    assert found.value == pytest.approx(true, rel=0.05)
    assert found.value <= true * (1 + 1e-3)
    assert (found.step, found.rate) == (100, pytest.approx(0.01))
    assert all(map(torch.equal, model.parameters(), before))


def test_each_group_has_its_own_rate_and_rates_of_zero_move_nothing():
    model, _, batches = trained(torch.optim.SGD, {}, n=5)
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[3].parameters(), "lr": 0.2}]
    mixed, alone = (torch.optim.SGD(g, lr=0.1) for g in (groups, [{"params": model[3].parameters(), "lr": 0.2}]))
    rows = []
    for optimizer in (mixed, alone):
        given = bench(model, batches, optimizer=optimizer)
        measure(given)
        rows.append(sharpness(given.record).value)
    assert rows[0] == pytest.approx(rows[1], rel=0.02)


def test_a_factor_on_the_loss_counts():
    model, optimizer, batches = trained(torch.optim.SGD, {})
    plain = bench(model, batches, optimizer=optimizer)
    halved = bench(model, batches, optimizer=optimizer)
    halved.record.append("loss_factor", "cross_entropy", 0, 0.5)
    for given in (plain, halved):
        measure(given)
    assert sharpness(halved.record).value == pytest.approx(sharpness(plain.record).value / 2, rel=0.05)


def unequal(model):
    one, two = model.parameters()
    return torch.optim.SGD([{"params": [one], "momentum": 0.9}, {"params": [two]}], lr=0.1)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda m: torch.optim.Adagrad(m.parameters()), "how sharp a loss Adagrad can bear"),
        (lambda m: torch.optim.SGD(m.parameters(), lr=0.1, maximize=True), "maximises"),
        (unequal, "differ in momentum"),
        (lambda m: torch.optim.Adam(m.parameters()), "does not move anything at present"),
    ],
    ids=["unknown", "maximises", "groups", "not stepped yet"],
)
def test_what_is_not_known_is_refused(make, why):
    with pytest.raises(CannotIsolate, match=why):
        steps_of(make(nn.Linear(2, 2)))


def test_it_ends_when_the_value_is_known_well_enough():
    from trainwatch.probes.lanczos import Ritz

    def ritz(value, bound, complete=False):
        values = torch.tensor([0.0, value], dtype=torch.float64)
        return Ritz(values, torch.tensor([9.0, bound], dtype=torch.float64), 9, complete, torch.eye(2))

    assert known(ritz(2.0, 0.09))
    assert not known(ritz(2.0, 0.11))
    assert known(ritz(2.0, 9.0, complete=True))


def test_without_rows_nothing_is_known():
    given = bench(nn.Linear(2, 2), [])
    assert sharpness(given.record) is None
    given.record.append("sharpness", "held", 3, [4.0, 0.1, 2.0, 9, 0.1])
    assert math.isclose(sharpness(given.record).excess, 2.0)
