import math

import pytest
import torch

from benches import bench, blobs, in_batches, net
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.penalised import Penalised, coefficients
from trainwatch.record import RunRecord

X, Y, _, _ = blobs()
ADDED = {"l1": {"0.weight": 0.1, "gone": 5.0}, "l2": {"0.bias": 0.01}}


class Whole:
    """A batch that computes all that the run backpropagates."""

    complete = True
    samples = 8

    def __init__(self, batch, factor):
        self.batch, self.factor = batch, factor

    def predict(self, model):
        return self.batch.predict(model)

    def loss(self, model):
        return self.factor * self.batch.loss(model) + size(model)

    def losses(self, model):
        return self.factor * self.batch.losses(model) + size(model)


def size(model):
    return 0.1 * model[0].weight.abs().sum() + 0.01 * (model[0].bias ** 2).sum()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_terms_are_there_or_not_whatever_the_batch_computes(whole, factor):
    model, batch = net(6, 3), in_batches(X, Y)[0]
    criterion, term = batch.loss(model).mean(), size(model)
    made = Whole(batch, factor) if whole else batch
    with_terms, without = (Penalised(made, ADDED, factor, present) for present in (True, False))
    scale = factor if whole else 1.0
    assert with_terms.loss(model).item() == pytest.approx((criterion * scale + term * scale / factor).item(), rel=1e-5)
    assert without.loss(model).item() == pytest.approx((criterion * scale).item(), rel=1e-5)
    assert torch.allclose(without.losses(model), batch.losses(model), rtol=1e-4), "in the unit of the criterion"
    assert torch.equal(without.predict(model), batch.predict(model))
    assert with_terms.samples == made.samples
    assert with_terms.complete is whole


def test_its_gradient_is_that_of_the_run():
    model, batch, factor = net(6, 3), in_batches(X, Y)[0], 4.0
    loss = Penalised(batch, ADDED, factor).loss(model) * factor
    (mine,) = torch.autograd.grad(loss, model[0].weight)
    (run,) = torch.autograd.grad(factor * batch.loss(model).mean() + size(model), model[0].weight)
    assert torch.allclose(mine, run, rtol=1e-5)


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({}, {}),
        ({"regularisation": {"penalties": {}}}, {}),
        ({"regularisation": {"penalties": {"l1": {"a": 0.1, "b": math.nan, "c": 0.0, "d": -1.0}}}}, {"l1": {"a": 0.1}}),
        ({"regularisation": {"penalties": {"l2": {"a": 0.1}, "l1": {}}}}, {"l2": {"a": 0.1}}),
    ],
)
def test_coefficients_are_those_that_can_be_used(facts, found):
    record = RunRecord()
    for name, value in facts.items():
        record.set_fact(name, value)
    assert coefficients(record) == found


@pytest.mark.parametrize("factor", [1.0, 0.25])
@pytest.mark.parametrize("how", ["as it is", "with its terms", "a step of the trainer", "without them"])
def test_a_copy_learns_by_what_the_run_adds_to_its_criterion(how, factor):
    """The gradient of a step is that of the whole loss, once, whoever adds the terms."""
    model, batch = net(6, 3), in_batches(X, Y)[0]
    made = Whole(batch, factor) if how == "a step of the trainer" else batch
    if how in ("with its terms", "without them"):
        made = Penalised(made, ADDED, factor, present=how == "with its terms")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = bench(model, [batch], (), optimizer, regularisation={"penalties": ADDED})
    given.record.append("loss_factor", "cross_entropy", 0, factor)
    expected = factor * batch.loss(model).mean() + (0.0 if how == "without them" else size(model))
    (wanted,) = torch.autograd.grad(expected, [model[0].weight])
    with given.learner(training=False) as (copied, steps):
        said = given.train_step(made, copied, steps)
        assert copied[0].weight.detach().numpy() == pytest.approx(
            (model[0].weight - 0.1 * wanted).detach().numpy(), abs=1e-6
        )
    if how == "as it is":
        assert said.item() == pytest.approx(batch.loss(model).mean().item())


def test_what_a_trainers_own_step_multiplies_its_losses_by_need_not_be_known():
    """It returns all that is backpropagated, of however many criteria."""
    model, batch = net(6, 3), in_batches(X, Y)[0]
    given = bench(model, [batch], (), torch.optim.SGD(model.parameters(), lr=0.1), regularisation={"penalties": ADDED})
    for stream in ("cross_entropy", "kl_div"):
        given.record.append("loss_factor", stream, 0, 1.0)
    with given.learner(training=False) as (copied, steps):
        given.train_step(Whole(batch, 1.0), copied, steps)
        assert not torch.equal(copied[0].weight, model[0].weight)
        with pytest.raises(CannotIsolate):
            given.train_step(batch, copied, steps)
