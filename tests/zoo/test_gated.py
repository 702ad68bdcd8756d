"""Gates and branches of the zoo's nets begin as their scenario says."""

import pytest
import torch
from torch import nn

from benchmarks.zoo.data import Sets
from benchmarks.zoo.models import build
from benchmarks.zoo.scenario import Model, ScenarioError


def net(kind, **words):
    """A net for four samples of 8 x 8, or for rows of 8 numbers where it is a plain one; the same first draw always."""
    torch.manual_seed(0)
    flat = kind in ("glu", "highway", "mlp")
    x, y = torch.randn(4, 8) if flat else torch.randn(4, 8, 8), torch.arange(4) % 3
    return build(Model(kind=kind, hidden=(8, 8), **words), Sets("classes", 3, x, y, x, y)), x


@pytest.mark.parametrize(("kind", "gate", "rows"), [("lstm", "forget", slice(8, 16)), ("gru", "update", slice(8, 16))])
def test_one_gate_of_a_recurrent_net_gets_its_bias_and_the_others_keep_theirs(kind, gate, rows):
    (model, _), (plain, _) = net(kind, gate_bias={gate: 6.0}), net(kind)
    biases = model.body.bias_ih_l0 + model.body.bias_hh_l0
    assert biases[rows].tolist() == [6.0] * 8
    untouched = torch.ones(len(biases), dtype=torch.bool)
    untouched[rows] = False
    assert torch.equal(biases[untouched], (plain.body.bias_ih_l0 + plain.body.bias_hh_l0)[untouched])


@pytest.mark.parametrize("kind", ["glu", "highway", "squeeze_excite"])
def test_shut_gates_let_nothing_through_and_open_ones_do(kind):
    def reaction(bias):
        model, x = net(kind, gate_bias={"gate": bias}, activation="none")
        model.eval()
        with torch.no_grad():
            return model, (model(x) - model(x + 1.0)).abs().max()

    shut, least = reaction(-30.0)
    wide_open, most = reaction(30.0)
    assert most > 1e-3
    if kind == "highway":  # what is shut there is the way through the layer: the inputs are carried past it
        layer, x = shut[1], torch.randn(4, 8)
        assert torch.allclose(layer(x), x, atol=1e-6)
        assert torch.allclose(wide_open[1](x), torch.tanh(wide_open[1].value(x)), atol=1e-6)
    else:
        assert least < 1e-9


@pytest.mark.parametrize("kind", ["lstm", "gru", "glu", "highway", "squeeze_excite", "attention"])
def test_a_gain_makes_some_weights_larger_and_no_bias(kind):
    (model, _), (plain, _) = net(kind, gate_gain=10.0), net(kind)
    changed = {k for k, p in model.named_parameters() if not torch.equal(p, dict(plain.named_parameters())[k])}
    assert changed
    assert not any("bias" in name for name in changed)
    for name in changed:
        after, before = dict(model.named_parameters())[name], dict(plain.named_parameters())[name]
        ratio = (after / before).flatten()
        assert set(ratio.round().tolist()) <= {1.0, 10.0}


def test_the_gain_of_a_transformer_is_that_of_its_queries_and_keys():
    x = torch.arange(32).reshape(4, 8) % 5
    torch.manual_seed(0)
    spec, sets = Model(kind="transformer", hidden=(8,)), Sets("characters", 5, x, x, x, x)
    plain = build(spec, sets)
    torch.manual_seed(0)
    sharp = build(Model(kind="transformer", hidden=(8,), gate_gain=3.0), sets)
    before, after = (m.body.layers[0].self_attn.in_proj_weight for m in (plain, sharp))
    assert torch.equal(after[:16], before[:16] * 3.0)
    assert torch.equal(after[16:], before[16:])


@pytest.mark.parametrize(("kind", "gate"), [("lstm", "update"), ("gru", "forget"), ("mlp", "gate")])
def test_a_gate_that_the_net_does_not_have_is_named(kind, gate):
    with pytest.raises(ScenarioError, match=f"'{kind}' has no gate {gate}"):
        net(kind, gate_bias={gate: 1.0})


def test_a_branch_times_nothing_leaves_the_input():
    model, _ = net("mlp", residual=True, branch=0.0)
    x, block = torch.randn(4, 8), next(m for m in model if type(m).__name__ == "Residual")
    assert torch.equal(block(x), x)
    model, _ = net("mlp", residual=True, branch=0.5, activation="none")
    block = next(m for m in model if type(m).__name__ == "Residual")
    assert torch.allclose(block(x), x + 0.5 * nn.functional.linear(x, block.block[0].weight, block.block[0].bias))
