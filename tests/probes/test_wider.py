"""A wider copy that learns from the start, and how it is made."""

import pytest
import torch
from torch import nn

from benches import bench, blobs, in_batches, net, row
from trainwatch.probes import wider
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.widening import HIDDEN, bytes_of, narrowest, widen

X, Y, XV, YV = blobs(classes=5)
NAMES = ("before", "usual", "other", "error", "before_error",
         "val_before", "val_usual", "val_other", "val_error", "val_before_error", "times")  # fmt: skip


def modules_of(model):
    ran = [(name, module) for name, module in model.named_modules() if not [*module.children()]]
    return [{"name": name, "type": type(m).__name__, "order": i} for i, (name, m) in enumerate(ran)]


def given(model, data=(X, Y, XV, YV), optimizer=torch.optim.Adam, lr=0.01, **keywords):
    x, y, xv, yv = data
    return bench(model, in_batches(x, y, **keywords), in_batches(xv, yv, **keywords),
                 optimizer(model.parameters(), lr), modules=modules_of(model))  # fmt: skip


def tried(model, **options):
    torch.manual_seed(0)
    made = given(model, **options)
    wider.measure(made)
    return dict(zip(NAMES, row(made, "wider", "held"), strict=True))


def test_a_layer_of_one_unit_learns_less_than_one_of_sixteen():
    found = tried(net(6, 1, 5))
    assert found["times"] == 16
    for part in ("", "val_"):
        assert found[part + "other"] < 0.5 * found[part + "usual"]
        assert found[part + "other"] < found[part + "before"] - 5 * found[part + "before_error"]


def test_a_layer_of_many_units_gains_nothing():
    found = tried(net(6, 64, 5))
    assert found["times"] == 4
    assert abs(found["val_other"] - found["val_usual"]) < 0.1


def test_a_linear_model_gets_a_hidden_layer():
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] * x[:, 1] > 0).long()
    found = tried(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), data=(x[:200], y[:200], x[200:], y[200:]))
    assert found["val_usual"] > 0.6
    assert found["val_other"] < 0.4


class Reader(nn.Module):
    def __init__(self, cell, **options):
        super().__init__()
        self.letters, self.body = nn.Embedding(7, 3), cell(3, 3, batch_first=True, bidirectional=True, **options)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.body(self.letters(x))[0][:, -1])


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.norm = nn.Linear(4, 4), nn.LayerNorm(4, bias=False)

    def forward(self, x):
        return x + self.norm(self.inner(x))


def layers(*parts):
    return nn.Sequential(*parts)


MODELS = {
    "plain": (lambda: net(6, 8, 8, 5, norm=True), (3, 6)),
    "norm first": (lambda: layers(nn.BatchNorm1d(6), nn.Linear(6, 4), nn.Linear(4, 5)), (3, 6)),
    "norm last": (lambda: layers(nn.Linear(6, 4), nn.PReLU(4), nn.Linear(4, 5), nn.LayerNorm(5)), (3, 6)),
    "residual": (lambda: layers(nn.Linear(6, 4), Block(), Block(), nn.Linear(4, 5)), (3, 6)),
    "convolution": (lambda: layers(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False), nn.ReLU(),
                                   nn.Conv2d(4, 4, 3, groups=4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4),
                                   nn.Flatten(), nn.Linear(4 * 16, 5)), (3, 1, 6, 6)),
    "rnn": (lambda: Reader(nn.RNN, nonlinearity="relu"), None),
    "gru": (lambda: Reader(nn.GRU, num_layers=2), None),
    "lstm": (lambda: Reader(nn.LSTM), None),
}  # fmt: skip


@pytest.mark.parametrize(("make", "shape"), MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adagrad])
def test_all_between_input_and_output_is_wider(make, shape, kind):
    model = make().eval()
    x = torch.zeros(3, 4, dtype=torch.long) if shape is None else torch.randn(shape)
    out, few = model(x), sum(p.numel() for p in model.parameters())
    optimizer = kind(model.parameters(), 0.1)
    most = bytes_of(model, [m["name"] for m in modules_of(model)], 4)
    made = widen(model, optimizer, [m["name"] for m in modules_of(model)], 4)
    assert 4 * sum(p.numel() for p in made.parameters()) <= most <= 20 * sum(p.numel() for p in made.parameters())
    assert made(x).shape == out.shape
    assert not any(module.training for name, module in made.named_modules() if name and not [*module.children()])
    assert sum(p.numel() for p in made.parameters()) > 3 * few
    assert {id(p) for p in made.parameters()} == {id(p) for g in optimizer.param_groups for p in g["params"]}
    before = [p.clone() for p in made.parameters()]
    made(x).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))


def test_each_new_weight_is_in_the_group_of_the_one_it_stands_for():
    model = net(6, 8, 5)
    optimizer = torch.optim.SGD([{"params": [model[0].weight], "lr": 0.5}, {"params": [model[3].bias]}], 0.1)
    made = widen(model, optimizer, [m["name"] for m in modules_of(model)], 4)
    assert [[id(p) for p in g["params"]] for g in optimizer.param_groups] == [[id(made[0].weight)], [id(made[3].bias)]]
    single = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(single.parameters(), 0.1)
    made = widen(single, optimizer, [""], 4)
    assert made[0].out_features == HIDDEN
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in made.parameters()]


def test_memory_is_told_before_it_is_taken():
    single = nn.Sequential(nn.Linear(3000, 2))
    assert bytes_of(single, ["0"], 4) >= 4 * HIDDEN * (3000 + 2)
    made = given(net(6, 3000, 5))
    made._most_bytes = 2_000_000
    with pytest.raises(CannotIsolate, match="probe_memory"):
        wider.measure(made)


def test_the_narrowest_layer_is_between_input_and_output():
    for model, width in ((net(6, 8, 3, 5), 3), (net(6, 8, 2), 8), (nn.Sequential(nn.Linear(6, 2)), HIDDEN)):
        assert narrowest(model, [m["name"] for m in modules_of(model)]) == width


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head, self.scale = nn.Linear(6, 4), nn.Linear(4, 5), nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.head(self.body(x) * self.scale)


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.gain


class Viewed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.body(x).view(-1, 4))


def frozen():
    model = net(6, 8, 5)
    model[0].weight.requires_grad_(False)
    return model


def tied():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    return model


REFUSED = {
    "not known": (lambda: layers(nn.Linear(6, 4), Gain(), nn.Linear(4, 5)), "how '1' is made wider"),
    "own weights": (Own, "not all modules with weights"),
    "own shapes": (Viewed, "cannot be run"),
    "frozen": (frozen, "not trained"),
    "tied": (tied, "shared"),
    "single convolution": (lambda: layers(nn.Unflatten(1, (6, 1)), nn.Conv1d(6, 5, 1), nn.Flatten()), "single"),
    "no layer": (lambda: layers(nn.LayerNorm(6)), "no layer"),
    "several dimensions": (lambda: layers(nn.Linear(6, 4), nn.Unflatten(1, (2, 2)), nn.LayerNorm((2, 2)),
                                          nn.Flatten(), nn.Linear(4, 5)), "several dimensions"),
    "projection": (lambda: layers(nn.Linear(6, 6), nn.LSTM(6, 4, proj_size=2)), "projects"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_made_wider_is_refused(make, reason):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(CannotIsolate, match=reason):
        if reason == "cannot be run":
            wider.measure(given(model))
        else:
            widen(model, optimizer, [m["name"] for m in modules_of(model)], 4)


def test_what_is_learned_elsewhere_or_rebuilt_or_without_validation_is_refused():
    model = net(6, 4, 6)
    with pytest.raises(CannotIsolate, match="rebuilds"):
        wider.measure(given(model, data=(X, X, XV, XV), function="mse_loss"))
    made = given(model)
    made.starts = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(CannotIsolate, match="elsewhere"):
        wider.measure(made)
    with pytest.raises(CannotIsolate, match="no validation"):
        wider.measure(bench(model, in_batches(X, Y), modules=modules_of(model)))
    made = given(net(6, 64, 64, 5))
    made._most_bytes = 400_000
    with pytest.raises(CannotIsolate, match="probe_memory"):
        wider.measure(made)


def test_the_run_is_as_it_was():
    model = net(6, 4, 5)
    weights = [p.clone() for p in model.parameters()]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    tried(model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert model[0].out_features == 4
