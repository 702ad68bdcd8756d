"""`trainwatch.prox`: the minimum of lasso for every optimiser, and nothing else is touched."""

import copy
import math

import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn

import trainwatch
from trained import split
from trainwatch.probes.bench import step_of_copy
from trainwatch.probes.isolation import twin_with_optimizer
from trainwatch.probes.proximal import shrink

X, _, Y, _ = split("diabetes", 0)
X = X - X.mean(0)
ALPHA = 0.1  # four of ten coefficients stay
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "damped": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, dampening=0.5),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "rate as a tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01)),
    "short memory": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.5, 0.9)),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.0),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.005),
    "rmsprop, momentum": lambda p: torch.optim.RMSprop(p, lr=0.001, momentum=0.8),
    "rmsprop, centred": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, eps=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "adagrad, slowed": lambda p: torch.optim.Adagrad(p, lr=0.3, lr_decay=1e-3),
}


def fitted(model, optimizer, steps=800):
    """Gradient steps on all samples; the rate falls to nothing in the end."""
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X).flatten(), Y).backward()
        optimizer.step()
        schedule.step()
    return model


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_minimum_is_that_of_lasso(make):
    """sklearn halves the mean squared error."""
    lasso = Lasso(ALPHA, tol=1e-8).fit(X, Y)
    assert 0 < (lasso.coef_ == 0).sum() < 10
    model = nn.Linear(10, 1)
    optimizer = make(model.parameters())
    applied = trainwatch.prox(optimizer, l1=2 * ALPHA)
    found = fitted(model, optimizer).weight.detach()[0].numpy()
    assert ((found == 0) == (lasso.coef_ == 0)).all()
    assert found == pytest.approx(lasso.coef_, abs=0.01)
    assert applied.zeros == pytest.approx((lasso.coef_ == 0).mean())


def test_gradient_steps_on_the_same_loss_never_get_there():
    model = nn.Linear(10, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(1000):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(X).flatten(), Y) + 2 * ALPHA * model.weight.abs().sum()
        loss.backward()
        optimizer.step()
    assert (model.weight != 0).all()


def one_step(optimizer, *parameters):
    for p in parameters:
        p.grad = torch.zeros_like(p)
    optimizer.step()


def ones(*shape):
    return nn.Parameter(torch.ones(shape))


def test_biases_and_gains_are_left_alone_unless_asked_for():
    weight, bias = ones(2, 2), ones(2)
    for vectors, left in ((False, 1.0), (True, 0.5)):
        optimizer = torch.optim.SGD([weight, bias], lr=0.5)
        applied = trainwatch.prox(optimizer, l1=1.0, vectors=vectors)
        with torch.no_grad():
            weight.fill_(1.0)
            bias.fill_(1.0)
        one_step(optimizer, weight, bias)
        assert weight.tolist() == [[0.5, 0.5]] * 2
        assert bias.tolist() == [left] * 2
        applied.remove()


def test_groups_have_coefficients_of_their_own_that_may_change():
    body, head, late = ones(1, 1), ones(1, 1), ones(1, 1)
    optimizer = torch.optim.SGD([{"params": [body]}, {"params": [head], "l1": 0.0}], lr=0.1)
    trainwatch.prox(optimizer, l1=1.0)
    optimizer.add_param_group({"params": [late]})
    one_step(optimizer, body, head, late)
    assert [p.item() for p in (body, head, late)] == pytest.approx([0.9, 1.0, 0.9])
    optimizer.param_groups[1]["l1"] = 2.0
    one_step(optimizer, body, head, late)
    assert [p.item() for p in (body, head, late)] == pytest.approx([0.8, 0.8, 0.8])


def test_a_checkpoint_from_before_does_not_switch_it_off():
    weight = ones(1, 1)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    before = copy.deepcopy(optimizer.state_dict())
    trainwatch.prox(optimizer, l1=1.0)
    optimizer.load_state_dict(before)
    one_step(optimizer, weight)
    assert weight.item() == pytest.approx(0.9)


def test_what_the_optimiser_does_not_step_is_not_pulled_either():
    stepped, idle = ones(1, 1), ones(1, 1)
    optimizer = torch.optim.Adam([stepped, idle], lr=0.1)
    trainwatch.prox(optimizer, l1=1.0)
    one_step(optimizer, stepped)
    assert stepped.item() < idle.item() == 1.0


def test_a_weight_without_a_gradient_is_pulled_no_further_than_the_longest_step():
    weight = ones(1, 1)
    for make, longest in (
        (lambda p: torch.optim.Adam(p, lr=0.01), 0.01 * 0.1 / math.sqrt(0.001)),
        (lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.9, 0.9)), 0.01),
        (lambda p: torch.optim.RMSprop(p, lr=0.01), 0.1),
        (lambda p: torch.optim.Adagrad(p, lr=0.01), 0.01),
    ):
        with torch.no_grad():
            weight.fill_(1.0)
        optimizer = make([weight])
        trainwatch.prox(optimizer, l1=1.0)
        one_step(optimizer, weight)
        assert weight.item() == pytest.approx(1 - longest, rel=1e-5)


def test_removed_it_pulls_no_more_and_may_be_applied_again():
    weight = ones(1, 1)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    trainwatch.prox(optimizer, l1=1.0).remove()
    one_step(optimizer, weight)
    assert weight.item() == 1.0
    assert "l1" not in optimizer.param_groups[0]
    trainwatch.prox(optimizer, l1=1.0)
    one_step(optimizer, weight)
    assert weight.item() == pytest.approx(0.9)


@pytest.mark.parametrize("vectors", [False, True])
def test_a_copy_takes_proximal_steps_as_the_run_does(vectors):
    """Copies of an optimiser have no hooks."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainwatch.prox(optimizer, l1=1e3, vectors=vectors)
    other, steps = twin_with_optimizer(model, optimizer, 1 << 20)
    other(torch.ones(1, 2)).sum().backward()
    step_of_copy(steps)
    assert not other.weight.any()
    assert bool(other.bias.any()) is not vectors
    assert model.weight.all()


def test_a_group_with_an_l1_of_its_own_and_no_prox_is_left_alone():
    weight = ones(1, 1)
    optimizer = torch.optim.SGD([{"params": [weight], "l1": 1.0}], lr=0.1)
    weight.grad = torch.zeros(1, 1)
    step_of_copy(optimizer)
    assert weight.item() == 1.0


def test_shrinking_stops_at_zero():
    weights = torch.tensor([2.0, 0.5, -0.5, -2.0, 1.0, 0.0])
    shrink(weights, 1.0)
    assert weights.tolist() == [1.0, 0.0, 0.0, -1.0, 0.0, 0.0]
    shrink(weights, torch.tensor([0.25, 1.0, 1.0, 2.0, 1.0, 1.0]))
    assert weights.tolist() == [0.75, 0.0, 0.0, 0.0, 0.0, 0.0]


def sgd(*parameters, **options):
    return torch.optim.SGD(parameters or [ones(1, 1)], lr=0.1, **options)


BAD = {
    "no optimiser": (lambda: nn.Linear(1, 1), {}, TypeError, "got Linear"),
    "an unknown kind": (lambda: torch.optim.Rprop([ones(1, 1)]), {}, TypeError, "use one of SGD, Adam"),
    "below zero": (sgd, {"l1": -1.0}, ValueError, "at least 0, got -1.0"),
    "not a number": (sgd, {"l1": math.nan}, ValueError, "got nan"),
    "a switch": (sgd, {"l1": True}, ValueError, "got True"),
    "a text": (sgd, {"l1": "1e-4"}, ValueError, "got '1e-4'"),
    "of a group": (lambda: sgd({"params": [ones(1, 1)], "l1": -2}), {}, ValueError, "got -2"),
    "vectors alone": (lambda: sgd(ones(3)), {}, ValueError, "vectors=True"),
    "no group": (lambda: sgd({"params": [ones(1, 1)], "l1": 0.0}), {}, ValueError, "no parameter is left"),
    "nothing": (sgd, {"l1": 0.0}, ValueError, "no parameter is left"),
    "maximised": (lambda: sgd(maximize=True), {}, ValueError, "negate its loss"),
    "complex": (lambda: sgd(nn.Parameter(torch.ones(1, 1, dtype=torch.complex64))), {}, ValueError, "complex"),
}


@pytest.mark.parametrize(("make", "options", "kind", "text"), BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_named(make, options, kind, text):
    with pytest.raises(kind, match=text):
        trainwatch.prox(make(), **{"l1": 1.0, **options})


def test_twice_is_once_too_often():
    optimizer = sgd()
    trainwatch.prox(optimizer, l1=1.0)
    with pytest.raises(ValueError, match="remove"):
        trainwatch.prox(optimizer, l1=1.0)


def test_one_line_of_lightning_is_enough():
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(10, 1)

        def training_step(self, batch, index):
            return nn.functional.mse_loss(self.layer(batch[0]).flatten(), batch[1])

        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
            trainwatch.prox(optimizer, l1=0.5)
            return optimizer

    module = Module()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=64)
    trainer = lightning.Trainer(max_epochs=30, accelerator="cpu", logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(module, loader)
    assert (module.layer.weight == 0).sum() > 3


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [False, True])
def test_on_a_gpu(fused):
    model = nn.Linear(10, 1).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
    trainwatch.prox(optimizer, l1=0.2)
    for _ in range(500):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X.cuda()).flatten(), Y.cuda()).backward()
        optimizer.step()
    assert 0 < (model.weight == 0).sum() < 10
