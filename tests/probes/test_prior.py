import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benches import bench, blobs, held, in_batches, net, row
from trainwatch.probes import prior

X, Y, XV, YV = blobs(200)
MODEL = net(6, 8, 3)


def measured(model, train, val):
    given = bench(model, train, val)
    prior.measure(given)
    return given


class Left(nn.Module):
    """Tells which half of an image is bright."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 1) * 10)

    def forward(self, x):
        left, right = x[..., :4].mean((1, 2, 3)), x[..., 4:].mean((1, 2, 3))
        return torch.stack([left, right], 1) * self.scale


def halves(n=60):
    y = torch.arange(n) % 2
    x = torch.zeros(n, 1, 8, 8)
    x[y == 0, :, :, :4] = x[y == 1, :, :, 4:] = 1.0
    return x + 0.01 * torch.arange(n)[:, None, None, None] / n, y


def test_a_flip_is_the_end_of_a_net_that_tells_left_from_right():
    x, y = halves()
    given = measured(Left(), [held(x, y)], [held(x, y)])
    plain, changed, error, right, flipped = row(given, "input_change", "flip")
    assert (right, flipped) == (1.0, 0.0)
    assert changed > plain + 5
    assert error >= 0
    assert row(given, "input_change", "shift")[4] == row(given, "input_change", "rotation")[4] == 1.0
    assert not given.record.has("feature_importance")


def test_a_feature_that_is_not_looked_at_can_be_shuffled():
    with torch.no_grad():
        model = nn.Linear(6, 3)
        model.weight[:, 2:] = 0
    given = measured(model, in_batches(X, Y), in_batches(XV, YV))
    rises = np.array(row(given, "feature_importance", "val"))
    assert np.isnan(rises[6:]).all()
    np.testing.assert_allclose(rises[2:6], 0, atol=1e-6)
    assert (np.abs(rises[:2]) > 1e-3).all()


def test_noise_on_rows_is_in_the_spread_of_each_feature():
    wide = torch.tensor([1000.0, 1, 1, 1, 1, 1])
    with torch.no_grad():
        model = nn.Linear(6, 3)
        scaled = nn.Linear(6, 3)
        scaled.load_state_dict({"weight": model.weight / wide, "bias": model.bias})
    given = [measured(m, in_batches(X * w, Y), in_batches(XV * w, YV)) for m, w in ((model, 1.0), (scaled, wide))]
    first, second = (row(g, "input_change", "noise") for g in given)
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)
    assert first[0] != first[1]


def test_a_linear_model_of_the_inputs_is_scored_as_the_net_is():
    given = measured(MODEL, in_batches(X, Y), in_batches(XV, YV))
    linear, net_loss, error = row(given, "linear_probe", "inputs")
    with torch.no_grad():
        assert net_loss == pytest.approx(float(F.cross_entropy(MODEL(XV), YV)), rel=1e-4)
    assert linear < 0.5 < net_loss
    assert 0 < error < 0.3


@pytest.mark.parametrize("function", ["mse_loss", "binary_cross_entropy_with_logits"])
def test_other_criteria(function):
    targets = [(part == 1).float()[:, None] for part in (Y, YV)]
    batches = [in_batches(x, y, function=function) for x, y in zip((X, XV), targets, strict=True)]
    given = measured(net(6, 1), *batches)
    assert row(given, "linear_probe", "inputs")[0] < row(given, "linear_probe", "inputs")[1]
    accuracies = row(given, "input_change", "noise")[3:]
    assert np.isnan(accuracies).all() == (function == "mse_loss")


def test_the_spread_is_that_of_weights_and_not_of_biases():
    model = nn.Linear(6, 3)
    with torch.no_grad():
        model.weight.fill_(0.5)
        model.bias.fill_(100.0)
    assert row(measured(model, in_batches(X, Y), in_batches(XV, YV)), "weight_spread", "end") == pytest.approx(0.5)


def test_it_leaves_the_batches_and_the_random_numbers_alone():
    state, before = torch.get_rng_state(), XV.clone()
    measured(MODEL, in_batches(X, Y), in_batches(XV, YV))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(before, XV)
