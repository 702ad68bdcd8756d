import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benches import Given
from trainwatch.probes.activations import activations, measure
from trainwatch.probes.bench import Bench
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.record import RunRecord

ROOMY = 1 << 24


def rows(model, *batches):
    with torch.no_grad():
        return {name: site.row().numpy() for name, site in activations(model, [Given(x) for x in batches]).items()}


def with_bias(layer, values):
    with torch.no_grad():
        layer.bias.copy_(torch.as_tensor(values, dtype=torch.float32))
        layer.weight.mul_(0.01)
    return layer


def test_dead_and_rarely_active_units_are_counted_per_unit():
    x = torch.zeros(200, 2)
    x[7] = 500.0
    layer = with_bias(nn.Linear(2, 4), [1, -9, -9, -1])
    with torch.no_grad():
        layer.weight[3] = 1.0  # positive for one sample in 200
        layer.weight[1:3] = -0.01
    dead, rare, flat, _, entries, units = rows(nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 1)), x)["1:relu"]
    assert (dead, rare, flat) == pytest.approx((0.5, 0.75, 0.0))
    assert (entries, units) == (200, 4)


def test_batches_are_summed_up():
    model = nn.Sequential(with_bias(nn.Linear(2, 2), [0, 0]), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0], [0, 1.0]]))
    one, two = torch.tensor([[1.0, -1.0]] * 3), torch.tensor([[-1.0, 1.0]] * 5)
    assert rows(model, one)["1:relu"][0] == 0.5
    dead, _, _, rms, entries, _ = rows(model, one, two)["1:relu"]
    assert (dead, entries) == (0.0, 8)
    assert rms == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(("function", "at"), [(torch.sigmoid, 6.0), (torch.tanh, 3.0)])
def test_saturation_is_where_the_slope_is_small(function, at):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return function(x * self.w) + 1.0

    x = torch.cat([torch.full((3, 4), at), torch.full((3, 4), -at), torch.zeros(6, 4)])
    (row,) = rows(Net(), x).values()
    assert row[2] == pytest.approx(0.5)
    assert row[0] == 0.0


class Mixed(nn.Module):
    """Functions, methods, modules, in place, and one module used twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.act(self.b(self.act(self.a(x))))
        x = F.relu(x - 0.1)
        return self.c((x + 1).tanh())


def test_activations_are_found_however_they_are_called_and_keep_their_names():
    names = list(rows(Mixed(), torch.randn(5, 4)))
    assert names == ["act:relu", "act:relu#2", "model:relu", "model:tanh"]
    assert list(rows(Mixed(), torch.randn(5, 4), torch.randn(2, 4))) == names


def test_units_of_images_are_channels_and_those_of_sequences_features():
    image = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 7), nn.ReLU()
    )
    found = rows(image.eval(), torch.randn(4, 3, 8, 8))
    assert found["2:relu"][4:].tolist() == [4 * 36, 5]
    sequence = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 2))
    assert rows(sequence, torch.randn(4, 10, 6))["1:relu"][4:].tolist() == [40, 9]


def bench(model, batches, reason="none was held"):
    return Bench(model, lambda kind: batches, reason, RunRecord(), 7, ROOMY)


def test_what_the_loss_is_given_is_no_hidden_activation():
    b = bench(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3), nn.Sigmoid()), [Given(torch.randn(6, 4))])
    measure(b)
    assert list(b.record.keys("activity")) == ["1:tanh"]
    assert b.record.facts["activations"] == {"1:tanh": {"module": "1", "function": "tanh", "order": 0}}
    steps, values = b.record.series("activity", "1:tanh").history()
    assert steps.tolist() == [7]
    assert values.shape == (1, 6)


def test_it_is_measured_in_evaluation_mode_on_a_copy():
    model = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.9), nn.ReLU(), nn.Linear(64, 1))
    model.train()
    b = bench(model, [Given(torch.randn(300, 4))])
    buffers = [t.clone() for t in model.buffers()]
    state = torch.get_rng_state()
    measure(b)
    assert model.training
    assert all(torch.equal(a, c) for a, c in zip(buffers, model.buffers(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    first, second = (b.record.series("activity", k).values[0] for k in ("2:relu", "4:relu"))
    np.testing.assert_allclose(first[3], second[3], rtol=1e-5)  # dropout is off


def test_without_a_held_batch_it_says_why():
    with pytest.raises(CannotIsolate, match="none was held"):
        measure(bench(nn.Linear(2, 2), []))


@pytest.mark.parametrize(
    ("size", "count", "entries"), [(8, 20, 64), (10, 20, 70), (32, 20, 128), (2, 16, 32), (100, 3, 300)]
)
def test_small_batches_are_looked_at_until_there_are_enough_samples(size, count, entries):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    given = bench(model, [Given(torch.randn(size, 2), samples=size) for _ in range(count)])
    measure(given)
    assert given.record.series("activity", "1:relu").values[0][4] == entries
