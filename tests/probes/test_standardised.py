"""Copies that learn from standardised inputs, and from standardised targets."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benches import Given, bench, blobs, held, in_batches, net, row
from trainwatch.capture.batches import HeldStep
from trainwatch.probes import standard_inputs, standard_targets
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.standardised import scale_of

X, Y, XV, YV = blobs()
WISHED, WISHED_V = (x[:, :1] - x[:, 1:2] * x[:, 2:3] / 4 for x in (X, XV))
NAMES = ("before", "usual", "other", "error", "before_error",
         "val_before", "val_usual", "val_other", "val_error", "val_before_error")  # fmt: skip


def tried(probe, data, model, optimizer=torch.optim.SGD, lr=0.05, step=100, **keywords):
    torch.manual_seed(0)
    x, y, xv, yv = data
    given = bench(model, in_batches(x, y, **keywords), in_batches(xv, yv, **keywords),
                  optimizer(model.parameters(), lr), step=step)  # fmt: skip
    probe.measure(given)
    return dict(zip(NAMES, row(given, probe.KIND, "held"), strict=True))


def on_inputs(change, lr=0.05):
    return tried(standard_inputs, (change(X), Y, change(XV), YV), net(6, 24, 3), lr=lr)


def on_targets(change, lr=0.005, model=None, **keywords):
    data = X, change(WISHED), XV, change(WISHED_V)
    return tried(standard_targets, data, model or net(6, 24, 1), torch.optim.Adam, lr, function="mse_loss", **keywords)


@pytest.mark.parametrize("change", [lambda x: 0.01 * x, lambda x: x + 40.0, lambda x: x * torch.logspace(-2, 2, 6)])
def test_inputs_far_from_unit_scale_learn_worse_than_standardised_ones(change):
    found = on_inputs(change)
    for part in ("", "val_"):
        assert found[part + "other"] < found[part + "usual"] - 3 * found[part + "error"]
        assert found[part + "other"] < found[part + "before"] - 3 * found[part + "before_error"]


def test_on_standardised_inputs_copies_are_alike():
    mean, deviation = X.mean(0), X.std(0, unbiased=False)
    found = on_inputs(lambda x: (x - mean) / deviation)
    assert found["other"] == pytest.approx(found["usual"], rel=1e-3)
    assert found["val_other"] == pytest.approx(found["val_usual"], rel=1e-3)


@pytest.mark.parametrize("change", [lambda y: 50 * y, lambda y: y + 80.0, lambda y: 0.002 * y])
def test_targets_far_from_unit_scale_are_told_less_well(change):
    found = on_targets(change)
    for part in ("", "val_"):
        assert found[part + "other"] < found[part + "usual"] - 3 * found[part + "error"]
        assert found[part + "other"] < 0.6


def test_targets_are_compared_in_their_variance_whatever_their_unit():
    found = on_targets(lambda y: 50 * y, lr=1e-9)
    assert found["val_before"] == pytest.approx(found["val_usual"], rel=0.2)
    assert 0.8 < found["val_usual"] < 1.3
    mean, deviation = WISHED.mean(0), WISHED.std(0, unbiased=False)
    found = on_targets(lambda y: (y - mean) / deviation)
    assert found["val_other"] == pytest.approx(found["val_usual"], rel=1e-3)


def test_columns_of_targets_are_standardised_one_by_one():
    pair = lambda y: torch.cat([y, 1000 * y.flip(0)], 1)  # noqa: E731
    found = on_targets(pair, model=net(6, 24, 2), lr=1e-9)
    assert found["val_usual"] < 2  # a sum over unequal columns would be that of the larger


def test_many_columns_are_those_of_one_thing_with_one_unit():
    """As pixels of a picture, some of which hardly ever differ: nobody asks for those as much as for the others."""
    picture = lambda y: torch.cat([y, *[1e-3 * y.flip(0)] * 8], 1)  # noqa: E731
    many = on_targets(picture, model=net(6, 24, 9), lr=1e-9)
    few = on_targets(lambda y: picture(y)[:, :8], model=net(6, 24, 8), lr=1e-9)
    assert many["val_usual"] < 20 < few["val_usual"]


@pytest.mark.parametrize("columns", [1, 16])
def test_targets_that_are_all_the_same_are_refused(columns):
    centre = torch.linspace(-1, 1, columns)
    with pytest.raises(CannotIsolate, match="the same for all samples"):
        on_targets(lambda y: centre.expand(len(y), columns), model=net(6, 24, columns))


def test_rounding_is_no_deviation():
    assert scale_of([torch.full((500, 1), 0.1)], 1).deviation.item() == 1.0
    assert scale_of([torch.full((500, 1), 0.1) * (1 + 1e-6 * torch.randn(500, 1))], 1).deviation.item() == 1.0
    assert scale_of([torch.full((500, 1), 0.1) * (1 + 1e-4 * torch.randn(500, 1))], 1).deviation.item() < 1e-4


def test_features_are_columns_of_tables_and_channels_of_images():
    table, image, flat = torch.randn(50, 3) * 5, torch.randn(50, 3, 4, 4) + 9, torch.ones(50, 2)
    for tensor in (table, image):
        scaled = scale_of([tensor[:20], tensor[20:]], 1).of(tensor)
        others = [d for d in range(tensor.ndim) if d != 1]
        assert torch.allclose(scaled.mean(others), torch.zeros(3), atol=1e-4)
        assert torch.allclose(scaled.std(others, unbiased=False), torch.ones(3), atol=1e-4)
    assert not scale_of([flat], 1).of(flat).any()
    assert scale_of([table], None).mean.shape == (1, 1)


def test_what_cannot_be_standardised_is_refused():
    with pytest.raises(CannotIsolate, match="differ"):
        scale_of([torch.zeros(2, 3), torch.zeros(2, 4)], 1)
    with pytest.raises(CannotIsolate, match="finite"):
        scale_of([torch.tensor([[1.0, float("nan")]])], 1)
    whole = tuple(torch.zeros(len(x), 1, dtype=torch.long) for x in (X, XV))
    for probe, (x, y, xv, yv), reason in (
        (standard_inputs, (whole[0], Y, whole[1], YV), "no tensor of numbers"),
        (standard_targets, (X, Y, XV, YV), "no numbers"),
        (standard_targets, (X, X, XV, XV), "an input as well"),
    ):
        model = nn.Linear(6, 6)
        function = "mse_loss" if y is X else "cross_entropy"
        train, val = in_batches(x, y, function=function), in_batches(xv, yv, function=function)
        if probe is standard_inputs:
            model = nn.Embedding(2, 3)
        with pytest.raises(CannotIsolate, match=reason):
            probe.measure(bench(model, train, val, torch.optim.SGD(model.parameters(), 0.1)))
    with pytest.raises(CannotIsolate, match="cannot be replaced"):
        standard_inputs.measure(bench(nn.Linear(6, 3), [Given(X)], [Given(XV)]))
    for probe in (standard_inputs, standard_targets):
        with pytest.raises(CannotIsolate, match="no validation"):
            probe.measure(bench(nn.Linear(6, 3), in_batches(X, Y)))


def test_predictions_that_broadcast_are_refused():
    flat = replace(held(X, WISHED[:, 0], function="mse_loss"), predictions=lambda out: out)
    model = nn.Linear(6, 1)
    with pytest.raises(CannotIsolate, match="shape"):
        standard_targets.measure(bench(model, [flat], [flat], torch.optim.SGD(model.parameters(), 0.1)))


class Step(nn.Module):
    """A model with a step of its own, as trainers call it."""

    def __init__(self):
        super().__init__()
        self.net = net(6, 24, 1)

    def training_step(self, batch):
        x, y = batch
        return nn.functional.mse_loss(self.net(x).squeeze(1), y)


@pytest.mark.parametrize("probe", [standard_inputs, standard_targets])
def test_within_the_step_of_a_trainer(probe):
    def steps(x, y):
        return [HeldStep("train", 0, 20, 0, (), [x[i : i + 20], 60 * y[i : i + 20, 0]], 0) for i in range(0, 160, 20)]

    torch.manual_seed(0)
    model = Step()
    given = bench(model, steps(X, WISHED), steps(XV, WISHED_V), torch.optim.Adam(model.parameters(), 0.005))
    probe.measure(given)
    found = dict(zip(NAMES, row(given, probe.KIND, "held"), strict=True))
    assert found["val_usual"] > 0.8
    assert (found["val_other"] < 0.7) == (probe is standard_targets)


@pytest.mark.parametrize("probe", [standard_inputs, standard_targets])
def test_the_run_is_as_it_was(probe):
    model = net(6, 24, 1)
    weights, data = [p.clone() for p in model.parameters()], (X.clone(), WISHED.clone())
    torch.manual_seed(0)
    state = torch.get_rng_state()
    tried(probe, (X, WISHED, XV, WISHED_V), model, function="mse_loss")
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert torch.equal(data[0], X)
    assert torch.equal(data[1], WISHED)
