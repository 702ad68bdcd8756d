"""Products with the Hessian: what they cost in passes and memory, and how they are made."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainwatch.probes.curvature import Hessian, NoCurvature
from twice import LOSSES, NETS, case

ROOMY = 1 << 30


class Counted:
    """A loss of a model on a batch that counts how often it is computed."""

    def __init__(self, model, loss, batch):
        self.model, self.loss, self.batch, self.calls = model, loss, batch, 0

    def __call__(self):
        self.calls += 1
        return self.loss(self.model, self.batch)


def given(net="tanh", loss="mse", batches=3, memory=ROOMY, **more):
    model, criterion, some = case(net, loss, batches)
    model.eval()
    losses = [Counted(model, criterion, batch) for batch in some]
    parameters = [p for p in model.parameters() if p.requires_grad]
    return Hessian(losses, parameters, memory=memory, **more), losses, parameters


def some_vector(hessian, seed=0):
    return torch.randn(hessian.size, generator=torch.Generator().manual_seed(seed), dtype=hessian.dtype)


def test_a_kept_graph_is_built_once_however_many_products():
    hessian, losses, _ = given()
    for n in range(10):
        hessian(some_vector(hessian, n))
    assert [loss.calls for loss in losses] == [2, 1, 1]  # the first was tried before
    assert (hessian.products, hessian.kept) == (10, 3)


def test_graphs_are_kept_for_as_many_losses_as_memory_allows():
    roomy, _, _ = given()
    assert roomy.kept == 3
    size = next(memory for memory in range(0, 1 << 16, 64) if given(memory=memory)[0].kept == 1)
    hessian, losses, _ = given(memory=size)
    for n in range(5):
        hessian(some_vector(hessian, n))
    assert [loss.calls for loss in losses] == [2, 5, 5]
    assert size > 4 * hessian.size / 2  # activations and weights that a graph saves
    torch.testing.assert_close(hessian(some_vector(hessian)), roomy(some_vector(roomy)))


def test_the_gradient_needs_no_pass_of_its_own():
    hessian, losses, parameters = given()
    found = hessian.gradient()
    hessian(some_vector(hessian))
    assert [loss.calls for loss in losses] == [2, 1, 1]
    true = torch.autograd.grad(sum(loss() for loss in losses) / 3, parameters)
    torch.testing.assert_close(found, torch.cat([g.reshape(-1) for g in true]))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("net", [n for n in NETS if n not in ("relu", "batch-norm")])
def test_differences_agree_with_double_backward_where_nothing_has_a_kink(net, loss):
    hessian, _, _ = given(net, loss)
    vector = some_vector(hessian)
    exact = hessian(vector)
    hessian.use_differences()
    torch.testing.assert_close(hessian(vector), exact, rtol=0, atol=3e-3 * float(exact.norm()))
    assert (hessian(torch.zeros_like(vector)) == 0).all()


def test_differences_and_moves_put_the_parameters_back_bit_for_bit():
    hessian, _, parameters = given()
    before = [p.detach().clone() for p in parameters]
    hessian.use_differences()
    hessian(some_vector(hessian))
    assert all(map(torch.equal, before, parameters))
    with pytest.raises(KeyError), hessian.moved(some_vector(hessian), 1e-3):
        assert not torch.equal(before[0], parameters[0])
        raise KeyError
    assert all(map(torch.equal, before, parameters))
    assert all(p.grad is None for p in parameters)


def test_each_loss_on_its_own_adds_up_to_the_mean():
    for differences in (False, True):
        hessian, _, _ = given()
        if differences:
            hessian.use_differences()
        vector = some_vector(hessian)
        gradients, products = zip(*hessian.apart(vector), strict=True)
        torch.testing.assert_close(sum(gradients) / 3, hessian.gradient())
        torch.testing.assert_close(sum(products) / 3, hessian(vector), rtol=1e-3, atol=1e-5)
        assert (gradients[0] - gradients[1]).norm() > 0.1 * gradients[0].norm()


def test_what_is_combined_is_the_mean():
    plain, _, _ = given()
    doubled, _, _ = given(combine=lambda t: t.mul_(2))
    vector = some_vector(plain)
    torch.testing.assert_close(doubled(vector), 2 * plain(vector))
    torch.testing.assert_close(doubled.gradient(), 2 * plain.gradient())


def test_a_released_graph_is_built_again_from_changed_parameters():
    hessian, _, parameters = given(loss="cross-entropy")
    vector = some_vector(hessian)
    before = hessian(vector)
    hessian.release()
    with torch.no_grad():
        parameters[0].mul_(2)
    assert not torch.allclose(hessian(vector), before, rtol=1e-2)


def test_parameters_of_both_precisions_are_taken_together():
    x = torch.ones(2, requires_grad=True)
    y = torch.ones(2, dtype=torch.float64, requires_grad=True)
    hessian = Hessian([lambda: (x * y).sum()], [x, y], memory=ROOMY)
    assert hessian.dtype == torch.float64
    assert hessian(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)).tolist() == [3.0, 4.0, 1.0, 2.0]


class Stubborn(nn.Module):
    """Dropout that does not heed evaluation mode."""

    def forward(self, x):
        return F.dropout(x, 0.5, training=True)


def test_a_stubborn_dropout_always_draws_the_same_mask():
    """Otherwise each product, and each side of a difference, would be of another function."""
    net = nn.Sequential(nn.Linear(32, 8), nn.Tanh(), Stubborn(), nn.Linear(8, 3))
    kept, _, _ = given(net)
    built, _, _ = given(net, memory=0)
    vector = some_vector(kept)
    exact = kept(vector)
    assert torch.equal(built(vector), exact)
    assert torch.equal(built(vector), exact)
    built.use_differences()
    torch.testing.assert_close(built(vector), exact, rtol=0, atol=1e-3 * float(exact.norm()))


class Backless(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()


def test_a_loss_without_a_gradient_is_refused_with_the_reason():
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(NoCurvature, match=r"the loss has no gradient: .*backward"):
        Hessian([lambda: Backless.apply(x).sum()], [x], memory=ROOMY)


@pytest.mark.gpu
@pytest.mark.parametrize("net", ["lstm", "fused", "multihead", "tanh"])
def test_a_gpu_finds_what_the_cpu_finds(net):
    model, loss, batches = case(net, "cross-entropy")
    found = []
    for device in ("cpu", "cuda"):
        moved = model.to(device).eval()
        losses = [Counted(moved, loss, tuple(t.to(device) for t in batch)) for batch in batches]
        hessian = Hessian(losses, list(moved.parameters()), memory=ROOMY)
        assert hessian.method == "double backward"
        found.append(hessian(some_vector(hessian).to(device)).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)
