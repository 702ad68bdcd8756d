"""Gates and attention rows as a probe finds them: against torch's own modules and by hand."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from trainwatch.probes import recurrent
from trainwatch.probes.bench import Bench
from trainwatch.probes.gates import Gate, gates, measure
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.rows import rows_of
from trainwatch.record import RunRecord


@dataclass
class Given:
    """A held batch made by hand."""

    args: tuple
    samples: int = 0

    def predict(self, model):
        return model(*self.args)


def found(model, *args, batches=1):
    model.eval()
    with torch.no_grad():
        return gates(model, [Given(args)] * batches)


def rows(model, *args, **more):
    return {name: site.row().tolist() for name, site in found(model, *args, **more).sites.items()}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------ recurrent layers

LAYERS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "three layers": {"num_layers": 3},
    "both ways": {"bidirectional": True},
    "two layers both ways": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False},
}


def again(module, *args, **kwargs):
    with torch.no_grad():
        return recurrent.run(module, recurrent.given(module, args, kwargs))


def seeded(make, *args, **kwargs):
    torch.manual_seed(0)
    return make(*args, **kwargs).eval()


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_gates_are_those_that_lead_to_the_outputs_of_the_module(kind, options):
    module = seeded(kind, 5, 7, **options)
    x = draw(6, 4, 5)
    with torch.no_grad():
        wanted = module(x)[0]
    outputs, known = again(module, x)
    outputs = outputs.transpose(0, 1) if module.batch_first else outputs
    torch.testing.assert_close(outputs, wanted)
    per_layer = {nn.LSTM: 3, nn.GRU: 2}[kind]
    assert len(known) == per_layer * module.num_layers * (1 + module.bidirectional)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projection_and_a_state_are_taken_into_account():
    module, x = seeded(nn.LSTM, 5, 7, 2, proj_size=3), draw(6, 4, 5)
    state = (draw(2, 4, 3, seed=1), draw(2, 4, 7, seed=2))
    with torch.no_grad():
        torch.testing.assert_close(again(module, x, state)[0], module(x, state)[0])
        torch.testing.assert_close(again(module, x, hx=state)[0], module(x, state)[0])
        torch.testing.assert_close(again(module, input=x)[0], module(x)[0])
    gru, state = seeded(nn.GRU, 5, 7), draw(1, 4, 7, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(again(gru, x, state)[0], gru(x, state)[0])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_single_sequence_needs_no_batch(kind, batch_first):
    module, x = seeded(kind, 5, 7, batch_first=batch_first), draw(6, 5)
    hidden = draw(1, 7, seed=1)
    state = hidden if kind is nn.GRU else (hidden, hidden)
    with torch.no_grad():
        torch.testing.assert_close(again(module, x, state)[0][:, 0], module(x, state)[0])


@pytest.mark.parametrize(
    ("kind", "names"), [(nn.LSTMCell, ["input", "forget", "output"]), (nn.GRUCell, ["reset", "update"])]
)
@pytest.mark.parametrize("bias", [True, False])
def test_cells(kind, names, bias):
    cell, x, h = seeded(kind, 5, 7, bias=bias), draw(4, 5), draw(4, 7, seed=1)
    state = h if kind is nn.GRUCell else (h, h + 1)
    with torch.no_grad():
        made, alone = cell(x, state), cell(x[0], h[0] if kind is nn.GRUCell else (h[0], h[0] + 1))
    hidden = (lambda out: out) if kind is nn.GRUCell else (lambda out: out[0])
    outputs, known = again(cell, x, state)
    torch.testing.assert_close(outputs[0], hidden(made))
    assert list(known) == names
    one = again(cell, x[0], h[0] if kind is nn.GRUCell else (h[0], h[0] + 1))[0]
    torch.testing.assert_close(one[0, 0], hidden(alone))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("stated", [False, True])
def test_of_packed_sequences_the_longest_are_taken(kind, stated, monkeypatch):
    monkeypatch.setattr(recurrent, "SAMPLES", 2)
    module, x = seeded(kind, 5, 7), draw(9, 4, 5)
    packed = pack_padded_sequence(x, torch.tensor([3, 9, 1, 6]), enforce_sorted=False)
    hidden = draw(1, 4, 7, seed=1)
    state = (hidden if kind is nn.GRU else (hidden, hidden)) if stated else None
    seen = recurrent.given(module, (packed, state), {})
    assert (tuple(seen.x.shape), seen.length) == ((6, 2, 5), 9)
    with torch.no_grad():
        wanted = module(x[:6], state)[0][:, [1, 3]]
        torch.testing.assert_close(recurrent.run(module, seen)[0], wanted)


def test_few_samples_and_steps_are_looked_at_however_many_there_are():
    module = seeded(nn.GRU, 5, 7)
    seen = recurrent.given(module, (draw(500, 100, 5),), {})
    assert tuple(seen.x.shape) == (recurrent.STEPS, recurrent.SAMPLES, 5)
    assert seen.length == 500


def with_bias(module, chunk, value, of):
    with torch.no_grad():
        for name, bias in module.named_parameters():
            if name.startswith("bias"):
                width = len(bias) // of
                bias[chunk * width : (chunk + 1) * width] = value / 2  # torch adds two
    return module


@pytest.mark.parametrize(
    ("kind", "of", "chunk", "gate"),
    [(nn.LSTM, 4, 0, "input"), (nn.LSTM, 4, 1, "forget"), (nn.LSTM, 4, 3, "output"), (nn.GRU, 3, 0, "reset"),
     (nn.GRU, 3, 1, "update")],
)  # fmt: skip
@pytest.mark.parametrize(("value", "column"), [(-20.0, 0), (20.0, 1)])
def test_a_gate_is_found_stuck_where_its_bias_holds_it(kind, of, chunk, gate, value, column):
    net = nn.Sequential(with_bias(seeded(kind, 5, 7), chunk, value, of))
    made = rows(net, draw(6, 4, 5))
    for name, row in made.items():
        assert row[:2] == [float(name == f"0:{gate}_l0" and column == c) for c in (0, 1)]
        assert row[5:] == [24, 7]
    assert made[f"0:{gate}_l0"][2 + column] == 1.0
    assert made[f"0:{gate}_l0"][4] == pytest.approx(column, abs=1e-6)


def test_a_slow_gate_of_a_long_sequence_is_not_stuck():
    """A unit that takes in one hundredth a step has taken in a lot after a few hundred."""
    net = nn.Sequential(with_bias(seeded(nn.LSTM, 5, 7), 0, -4.6, 4))
    with torch.no_grad():
        net[0].weight_ih_l0.zero_(), net[0].weight_hh_l0.zero_()
    assert rows(net, draw(6, 4, 5))["0:input_l0"][:3] == [1.0, 0.0, 1.0]
    assert rows(net, draw(200, 4, 5))["0:input_l0"][:3] == [0.0, 0.0, 1.0]


class Stepped(nn.Module):
    """A cell that is called step by step."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        state = None
        for row in x:
            state = self.cell(row, state)
        return state[0] if isinstance(state, tuple) else state


def test_calls_of_a_cell_are_steps_of_one_sequence():
    made = rows(Stepped(seeded(nn.LSTMCell, 5, 7)), draw(6, 4, 5))
    assert list(made) == ["cell:input", "cell:forget", "cell:output"]
    assert made["cell:input"][5] == 24
    whole = seeded(nn.LSTM, 5, 7)
    assert [row[4] for row in made.values()] == pytest.approx([row[4] for row in rows(whole, draw(6, 4, 5)).values()])
    slow = Stepped(with_bias(seeded(nn.LSTMCell, 5, 7), 0, -5.3, 4))  # open by 0.005
    with torch.no_grad():
        slow.cell.weight_ih.zero_(), slow.cell.weight_hh.zero_()
    assert rows(slow, draw(6, 4, 5))["cell:input"][0] == 1.0
    made = rows(slow, draw(250, 4, 5))["cell:input"]
    assert (made[0], made[5]) == (0.0, 4 * recurrent.STEPS)


def test_a_forward_pass_of_its_own_cannot_be_computed_again():
    class Own(nn.LSTM):
        def forward(self, x):
            return super().forward(2 * x)

    seen = found(nn.Sequential(Own(5, 7)), draw(6, 4, 5))
    assert seen.sites == {}
    assert seen.refused == {"0": "Own has a forward pass of its own"}


# ------------------------------------------------------------------ the row of a gate


def test_shares_are_of_units_and_of_entries():
    gate = Gate("product", "m", "sigmoid")
    values = torch.tensor([[0.0, 1.0, 0.5, 0.0], [0.01, 0.99, 0.5, 1.0]])
    gate.add(values)
    assert gate.row().tolist() == pytest.approx([0.25, 0.25, 3 / 8, 3 / 8, 0.5, 2, 4])
    gate.add(torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    assert gate.row().tolist() == pytest.approx([0.0, 0.0, 3 / 12, 3 / 12, 6 / 12, 3, 4])


@pytest.mark.parametrize(("value", "shut"), [(0.0199, 1.0), (0.0201, 0.0)])
def test_near_is_a_fiftieth(value, shut):
    gate, other = Gate("product", "m", "sigmoid"), Gate("product", "m", "sigmoid")
    gate.add(torch.full((3, 2), value))
    other.add(torch.full((3, 2), 1 - value))
    assert gate.row().tolist()[:4] == [shut, 0.0, shut, 0.0]
    assert other.row().tolist()[:4] == [0.0, shut, 0.0, shut]


def test_of_a_tanh_the_size_counts_and_other_widths_are_left_out():
    gate = Gate("product", "m", "tanh")
    gate.add(torch.tensor([[-1.0, 0.001]]))
    gate.add(torch.ones(5, 3))
    assert gate.row().tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5005, 1, 2])


# ------------------------------------------------------------------ products


class Net(nn.Module):
    """Two linear layers, and what is made of their outputs."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 16)
        self.scale, self.one = nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(1))
        self.register_buffer("mask", torch.ones(8) * 0.5)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def halves(y):
    return y.chunk(2, -1)


GATED = {
    "sigmoid": (lambda m, x: m.a(x) * torch.sigmoid(m.b(x)), "model:sigmoid", "b"),
    "the gate first": (lambda m, x: m.b(x).sigmoid() * m.a(x), "model:sigmoid", "b"),
    "in place": (lambda m, x: m.a(x).mul_(m.b(x).sigmoid_()), "model:sigmoid", "b"),
    "hard sigmoid": (lambda m, x: m.a(x) * F.hardsigmoid(m.b(x)), "model:hardsigmoid", "b"),
    "tanh": (lambda m, x: F.relu(m.a(x)) * torch.tanh(m.b(x)), "model:tanh", "b"),
    "wavenet": (lambda m, x: torch.tanh(m.a(x)) * torch.sigmoid(m.b(x)), "model:sigmoid", "b"),
    "glu by hand": (lambda m, x: halves(m.c(x))[0] * halves(m.c(x))[1].sigmoid(), "model:sigmoid", "c"),
    "halves of one layer": (lambda m, x: (lambda p, q: p * q.sigmoid())(*halves(m.c(x))), "model:sigmoid", "c"),
    "glu": (lambda m, x: F.glu(m.c(x)), "model:glu", "c"),
    "highway": (lambda m, x: torch.lerp(m.a(x), m.a(x).relu(), m.b(x).sigmoid()), "model:sigmoid", "b"),
    "highway by hand": (
        lambda m, x: (lambda t: t * m.a(x).relu() + (1 - t) * m.a(x))(m.b(x).sigmoid()), "model:sigmoid", "b"),
    "with a sum": (lambda m, x: torch.addcmul(m.a(x), m.a(x), m.b(x).sigmoid()), "model:sigmoid", "b"),
    "in another shape": (lambda m, x: m.a(x)[..., None] * m.b(x).sigmoid().unsqueeze(-1), "model:sigmoid", "b"),
    "scaled before": (lambda m, x: m.a(x) * (2 * m.b(x) + m.scale).sigmoid(), "model:sigmoid", "b"),
    "of a mean": (lambda m, x: m.a(x) * m.a(x).mean(0, keepdim=True).sigmoid(), "model:sigmoid", ""),
    "of itself through a layer": (lambda m, x: (lambda y: y * F.linear(y, m.a.weight.new_ones(8, 8)).sigmoid())(m.a(x)),
                                  "model:sigmoid", ""),
}  # fmt: skip


@pytest.mark.parametrize(("function", "name", "layer"), GATED.values(), ids=GATED)
def test_gates_of_products(function, name, layer):
    seen = found(Net(function), draw(10, 6))
    assert list(seen.sites) == [name]
    assert seen.sites[name].layer == layer
    assert seen.sites[name].row()[6] == 8


NO_GATES = {
    "silu by hand": lambda m, x: (lambda y: y * torch.sigmoid(y))(m.a(x)),
    "silu": lambda m, x: F.silu(m.a(x)),
    "in place": lambda m, x: (lambda y: y.clone().sigmoid_().mul_(y))(m.a(x)),
    "in another shape": lambda m, x: (lambda y: y.view(-1, 4) * torch.sigmoid(y.reshape(-1, 4)))(m.a(x)),
    "gelu by sigmoid": lambda m, x: (lambda y: y * torch.sigmoid(1.702 * y))(m.a(x)),
    "gelu by tanh": lambda m, x: (lambda y: 0.5 * y * (1 + torch.tanh(0.8 * (y + 0.04 * y**3))))(m.a(x)),
    "swish": lambda m, x: (lambda y: y * torch.sigmoid(m.one * y))(m.a(x)),
    "swish per unit": lambda m, x: (lambda y: y * torch.sigmoid(m.scale * y))(m.a(x)),
    "mish": lambda m, x: (lambda y: y * torch.tanh(F.softplus(y)))(m.a(x)),
    "swiglu": lambda m, x: F.silu(m.a(x)) * m.b(x),
    "a range": lambda m, x: 10 * torch.sigmoid(m.a(x)),
    "a learned range": lambda m, x: torch.sigmoid(m.a(x)) * m.scale,
    "a buffer": lambda m, x: torch.sigmoid(m.a(x)) * m.mask,
    "a mask": lambda m, x: torch.tanh(m.a(x)) * (x[:, :1] > 0).float(),
    "whole numbers": lambda m, x: torch.tanh(m.a(x)) * (x[:, :1] > 0).long(),
    "tanh of a tanh-like content": lambda m, x: torch.tanh(m.a(x)) + torch.sigmoid(m.b(x)),
    "a number from the data": lambda m, x: torch.sigmoid(m.a(x)) * x.mean(),
    "changed in place": lambda m, x: m.a(x) * torch.sigmoid(m.b(x)).sub_(0.5),
    "changed since": lambda m, x: m.a(x) * (torch.sigmoid(m.b(x)) - 0.5),
}


@pytest.mark.parametrize("function", NO_GATES.values(), ids=NO_GATES)
def test_what_is_no_gate(function):
    assert found(Net(function), draw(10, 6)).sites == {}


class Excite(nn.Module):
    """Squeeze and excite over the channels of a convolution."""

    def __init__(self, bias):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.down, self.up, self.act = nn.Conv2d(3, 6, 3), nn.Linear(6, 2), nn.Linear(2, 6), nn.Sigmoid()
        with torch.no_grad():
            self.up.bias.copy_(torch.tensor(bias))

    def forward(self, x):
        x = self.conv(x)
        gate = self.act(self.up(self.down(x.mean((2, 3))).relu()))
        return x * gate.view(len(x), -1, 1, 1).expand_as(x)


def test_squeeze_and_excite_has_a_gate_for_each_channel():
    seen = found(Excite([-30.0, -30, 30, 0, 0, 0]), draw(5, 3, 8, 8), batches=2)
    row = seen.sites["act:sigmoid"].row().tolist()
    assert row[:4] == pytest.approx([2 / 6, 1 / 6, 2 / 6, 1 / 6])
    assert row[5:] == [10, 6]
    assert seen.sites["act:sigmoid"].layer == "up"


def test_units_of_a_convolutional_gate_are_channels():
    class Spatial(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.a(x) * self.b(x).sigmoid()

    assert rows(Spatial(), draw(5, 3, 8, 8))["model:sigmoid"][5:] == [5 * 64, 4]
    glu = nn.Sequential(nn.Conv1d(3, 8, 1), nn.GLU(1))
    assert rows(glu, draw(5, 3, 9))["1:glu"][5:] == [45, 4]


class Cell(nn.Module):
    """An LSTM's step written by hand."""

    def __init__(self, apart):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.apart = nn.Linear(12, 28), apart

    def forward(self, x, state):
        h, c = (x.new_zeros(len(x), 7),) * 2 if state is None else state
        y = self.layer(torch.cat([x, h], 1))
        if self.apart:
            i, f, o = (part.sigmoid() for part in y[:, :21].chunk(3, 1))
        else:
            i, f, o = y[:, :21].sigmoid().chunk(3, 1)
        c = f * c + i * y[:, 21:].tanh()
        return o * c.tanh(), c


@pytest.mark.parametrize("apart", [True, False])
def test_a_cell_written_by_hand_has_three_gates_however_many_steps_it_takes(apart):
    made = found(Stepped(Cell(apart)), draw(6, 4, 5))
    assert list(made.sites) == ["cell:sigmoid", "cell:sigmoid#2", "cell:sigmoid#3"]
    assert [site.row()[5:].tolist() for site in made.sites.values()] == [[24, 7]] * 3
    assert all(len(site.activations) == 6 for site in made.sites.values())


def test_a_gate_is_known_by_its_name_among_the_activations():
    net = Net(lambda m, x: torch.sigmoid(m.a(x)) + m.a(x) * torch.sigmoid(m.b(x)))
    assert found(net, draw(5, 6), batches=2).sites["model:sigmoid"].activations == ["model:sigmoid#2"]


def test_a_gate_of_two_products_is_counted_once():
    net = Net(lambda m, x: (lambda g: g * m.a(x) + g * m.a(x).relu())(m.b(x).sigmoid()))
    assert [site.entries for site in found(net, draw(5, 6)).sites.values()] == [5]


# ------------------------------------------------------------------ attention


def attended(logits, heads=1):
    return dict(
        zip(("sharp", "least", "flat", "largest", "rows", "heads"), rows_of(logits, heads).row().tolist(), strict=True)
    )


def test_rows_are_sharp_flat_or_in_between():
    logits = torch.tensor([[9.0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 200]])
    made = attended(logits[None])
    assert (made["sharp"], made["flat"], made["rows"], made["heads"]) == (0.5, 0.25, 4, 1)
    assert made["largest"] == pytest.approx(logits.softmax(-1).amax(-1).mean().item())


def test_masked_entries_do_not_count_and_rows_of_few_are_left_out():
    logits = torch.zeros(1, 4, 6)
    for allowed, row in zip((1, 3, 4, 6), logits[0], strict=True):
        row[allowed:] = -torch.inf
    made = attended(logits)
    assert (made["rows"], made["flat"], made["sharp"]) == (2, 1.0, 0.0)
    assert list(attended(torch.full((1, 2, 6), -torch.inf)).values()) == [0, 0, 0, 0, 0, 1]
    large = torch.zeros(1, 1, 6)
    large[..., 1:] = -1e4  # how some write a mask
    assert attended(large)["rows"] == 0
    assert attended(torch.tensor([[[900.0, -900, -900, -900, 0]]]))["sharp"] == 1.0  # weights of 0 that no mask made


def test_heads_are_told_apart():
    logits = torch.zeros(2, 3, 5, 4)
    logits[:, 0] += torch.tensor([99.0, 0, 0, 0])
    logits[:, 1, :2] += torch.tensor([99.0, 0, 0, 0])
    made = attended(logits, 3)
    assert made["sharp"] == pytest.approx((1 + 0.4 + 0) / 3)
    assert (made["least"], made["heads"], made["rows"]) == (0.0, 3, 30)
    assert attended(logits[:, :2], 2)["least"] == pytest.approx(0.4)


class Attention(nn.Module):
    """Attention with four heads in different ways of writing."""

    def __init__(self, how, scale=None, **options):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.how, self.scale, self.options = nn.Linear(8, 8), nn.Linear(8, 8), how, scale, options
        with torch.no_grad():
            self.q.weight.mul_(20)

    def forward(self, x, mask=None):
        q, k, v = (t.unflatten(-1, (4, 2)).transpose(1, 2) for t in (self.q(x), self.k(x), x))
        if self.how == "fused":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale, **self.options)
        logits = q @ k.transpose(-2, -1) * (self.scale or 2**-0.5)
        if self.options.get("is_causal"):
            logits = logits.masked_fill(~torch.ones(len(x[0]), len(x[0]), dtype=torch.bool).tril(), -torch.inf)
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
        weights = logits.softmax(-1)
        if self.how == "einsum":
            return torch.einsum("bhij,bhjd->bhid", weights, v)
        return (F.dropout(weights, 0.1, self.training) @ v).transpose(1, 2)


@pytest.mark.parametrize("how", ["fused", "matmul", "einsum"])
@pytest.mark.parametrize(
    ("options", "mask"),
    [({}, None), ({"is_causal": True}, None), ({"scale": 0.1}, None), ({}, (torch.arange(7) < 5)[None]),
     ({}, draw(7, 7, seed=3)), ({}, draw(3, 1, 1, 7, seed=3))],
    ids=["plain", "causal", "scaled", "mask", "bias", "bias per sample"],
)  # fmt: skip
def test_rows_of_attention_are_the_same_however_it_is_written(how, options, mask):
    x = draw(3, 7, 8)
    (row,) = rows(Attention(how, **options), x, *([] if mask is None else [mask])).values()
    net = Attention(how, **options)
    with torch.no_grad():
        q, k = (t.unflatten(-1, (4, 2)).transpose(1, 2) for t in (net.q(x), net.k(x)))
    logits = q @ k.transpose(-2, -1) * options.get("scale", 2**-0.5)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    if options.get("is_causal"):
        logits = logits.masked_fill(torch.ones(7, 7).triu(1) > 0, -torch.inf)
    counted = (logits > -1e9).sum(-1) >= 4
    largest = logits.softmax(-1).amax(-1)[counted]
    assert row[0] == pytest.approx((largest > 0.99).float().mean().item())
    assert row[3] == pytest.approx(largest.mean().item(), rel=1e-5)
    assert row[4:] == [counted.sum().item(), 4]
    assert 0 < row[0] < 1 or "scale" in options


def test_of_a_large_attention_a_few_rows_are_computed_again(monkeypatch):
    monkeypatch.setattr("trainwatch.probes.rows.MOST", 4 * 5 * 100 * 2)
    (row,) = rows(Attention("fused"), draw(6, 100, 8)).values()
    assert row[4:] == [4 * 10, 4]
    monkeypatch.undo()
    (row,) = rows(Attention("fused"), draw(6, 100, 8)).values()
    assert row[4] == 6 * 4 * 64


def test_heads_may_share_their_keys():
    q, k = draw(2, 4, 6, 3), draw(2, 2, 6, 3, seed=1)

    class Grouped(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(10 * q, k, k, enable_gqa=True)

    (row,) = rows(Grouped(), q).values()
    largest = (10 * q @ k.repeat_interleave(2, 1).transpose(-2, -1) / 3**0.5).softmax(-1).amax(-1)
    assert row[3] == pytest.approx(largest.mean().item(), rel=1e-5)
    assert row[5] == 4


class Attends(nn.Module):
    def __init__(self, weights):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.weights = nn.MultiheadAttention(8, 2, batch_first=True), weights

    def forward(self, x):
        return self.inner(x, x, x, need_weights=self.weights)[0]


def test_torch_s_own_attention_and_transformer_layers_are_seen():
    made = [rows(Attends(weights), draw(3, 7, 8)) for weights in (True, False)]
    assert [list(m) for m in made] == [["inner:softmax"], ["inner:attention"]]
    one, other = (next(iter(m.values())) for m in made)
    assert one == pytest.approx(other, rel=1e-5)
    assert one[4:] == [3 * 7 * 2, 2]
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    made = rows(nn.TransformerEncoder(layer, 2), draw(3, 7, 8))
    assert list(made) == ["layers.0.self_attn:attention", "layers.1.self_attn:attention"]


def test_a_softmax_that_weighs_a_product_is_attention_and_one_that_is_only_returned_is_not():
    pooled = Net(lambda m, x: (m.a(x).softmax(1).unsqueeze(-1) * m.b(x).unsqueeze(1)).sum(1))
    seen = found(pooled, draw(10, 6))
    assert list(seen.sites) == ["model:softmax"]
    assert seen.sites["model:softmax"].row()[4:].tolist() == [10, 1]
    assert found(Net(lambda m, x: m.a(x).softmax(-1)), draw(10, 6)).sites == {}


# ------------------------------------------------------------------ the probe


def bench(model, *batches):
    return Bench(model, lambda kind: [Given((x,)) for x in batches], "none was held", RunRecord(), 7, 1 << 24)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.attention = nn.GRU(8, 8, batch_first=True), Attends(False)
        self.drop, self.head = nn.Dropout(0.9), nn.Linear(8, 16)

    def forward(self, x):
        return F.glu(self.head(self.drop(self.attention(self.body(x)[0]))))


def test_what_is_recorded():
    b = bench(Two(), draw(3, 7, 8), draw(2, 7, 8))
    measure(b)
    facts = b.record.facts["gates"]
    assert sorted(facts) == ["attention.inner:attention", "body:reset_l0", "body:update_l0", "model:glu"]
    assert sorted(f["order"] for f in facts.values()) == [0, 1, 2, 3]
    assert facts["body:update_l0"] == {
        "module": "body", "kind": "gru", "function": "update", "layer": "", "activations": [], "order": 3}  # fmt: skip
    assert facts["model:glu"]["kind"] == "glu"
    assert facts["model:glu"]["layer"] == "head"
    assert facts["attention.inner:attention"]["kind"] == "attention"
    assert sorted(b.record.keys("gates")) == ["body:reset_l0", "body:update_l0", "model:glu"]
    steps, values = b.record.series("gates", "model:glu").history()
    assert (steps.tolist(), values.shape, values[0][5]) == ([7], (1, 7), 35)
    assert b.record.series("attention", "attention.inner:attention").values[0][4] == 35 * 2


def test_it_leaves_no_trace():
    model = Two().train()
    b, state = bench(model, draw(3, 7, 8)), torch.get_rng_state()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    measure(b)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()
    again = bench(model, draw(3, 7, 8))
    measure(again)
    for name in b.record.keys("gates"):
        np.testing.assert_array_equal(b.record.series("gates", name).values, again.record.series("gates", name).values)


def test_torch_s_switch_is_put_back_where_a_pass_fails():
    class Fails(nn.Module):
        def forward(self, x):
            raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        found(Fails(), draw(2, 2))
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_net_without_gates_is_known_to_have_none():
    b = bench(nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2)), draw(5, 4))
    measure(b)
    assert b.record.facts["gates"] == {}
    assert not b.record.has("gates")


def test_the_reason_of_what_is_not_measured_is_kept():
    class Own(nn.GRU):
        def forward(self, x):
            return super().forward(x)[0]

    b = bench(nn.Sequential(Own(8, 4)), draw(5, 3, 8))
    measure(b)
    assert b.record.facts["gates"] == {
        "0": {"module": "0", "kind": "unknown", "reason": "Own has a forward pass of its own", "order": 0}}  # fmt: skip


def test_without_a_held_batch_it_says_why():
    with pytest.raises(CannotIsolate, match="none was held"):
        measure(bench(nn.Linear(2, 2)))
