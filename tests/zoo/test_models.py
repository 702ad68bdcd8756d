"""Beginnings that the zoo gives its nets: twins, shifted biases, adapters, and products of factors."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.zoo.data import Sets
from benchmarks.zoo.models import Factorised, adapt, build
from benchmarks.zoo.scenario import Model

X = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
SETS = Sets("classes", 3, X, torch.arange(20) % 3, X, torch.arange(20) % 3)


def test_twins_give_the_same_and_are_given_the_same_gradient():
    model = build(Model(hidden=(4,), activation="Tanh", init="alike", gain=0.3), SETS)
    nn.functional.cross_entropy(model(X), SETS.y_train).backward()
    first = model[0]
    assert torch.equal(first.bias.detach(), torch.zeros(4))
    assert first.weight.grad.abs().sum() > 0
    assert torch.allclose(first.weight.grad, first.weight.grad[:1].expand(4, -1))


def test_a_shift_is_added_to_biases_alone():
    spec = Model(hidden=(4,), norm="layer")
    plain, shifted = (build_from(0, replace(spec, shift=s)) for s in (0.0, -6.0))
    for (name, before), after in zip(plain.named_parameters(), shifted.parameters(), strict=True):
        assert torch.equal(after, before - 6 if "bias" in name else before)


@pytest.mark.parametrize("gain", [0.0, 1e-3])
def test_adapters_alone_are_trained_and_begin_as_they_are_told(gain):
    model = build_from(0, Model(hidden=(6, 6)))
    before = model(X)
    adapt(model, 2, gain)
    trained = {name.split(".", 1)[1]: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(trained) == {"down.weight", "up.weight"}
    assert sum(p.requires_grad for p in model.parameters()) == 6
    if gain:
        assert all(0 < p.abs().max() < 5e-3 for p in trained.values())
    else:
        assert torch.equal(model(X), before)  # one factor is zero
        assert trained["down.weight"].abs().max() > 0.1


def test_products_that_begin_at_zero_on_both_sides_get_no_gradient():
    model = build(Model(kind="factorised", hidden=(4,), init="zero"), SETS)
    assert isinstance(model, Factorised)
    nn.functional.cross_entropy(model(X), SETS.y_train).backward()
    assert model.linear.weight.grad.abs().sum() > 0
    assert not model.left.weight.grad.any()
    assert not model.right.weight.grad.any()


def test_a_factorisation_machine_knows_products_of_inputs():
    model = Factorised(2, 1, 1)
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor([[10.0, 0.0]]))
        model.linear.bias.fill_(1.0)
        model.left.weight.copy_(torch.tensor([[2.0, 0.0]]))
        model.right.weight.copy_(torch.tensor([[0.0, 3.0]]))
    assert model(torch.tensor([[1.0, 5.0]])).item() == 10 + 1 + 2 * 15


def build_from(seed, spec, sets=SETS):
    torch.manual_seed(seed)
    return build(spec, sets)


TEXT = torch.randint(0, 7, (4, 12), generator=torch.Generator().manual_seed(1))
CHARACTERS = Sets("characters", 7, TEXT, TEXT, TEXT, TEXT)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ["gru", "lstm", "transformer", "dilated"])
def test_later_characters_are_seen_where_that_is_asked_for(kind, causal):
    model = build_from(0, Model(kind=kind, hidden=(8, 8), causal=causal), CHARACTERS).eval()
    other = TEXT.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 7
    before, after = (model(x)[:, :, :6] for x in (TEXT, other))
    assert before.shape == (4, 7, 6)
    assert torch.allclose(before, after, atol=1e-6) == causal
