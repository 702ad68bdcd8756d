"""What weights and what activations do to a gradient on its way back, against what can be told beforehand."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from trainwatch.probes.backward_gain import gains_of, gradients_at, measure
from trainwatch.probes.bench import Bench
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.record import RunRecord


@dataclass
class Given:
    """A held batch made by hand; the loss is the scaled mean square of what the model returns."""

    x: torch.Tensor
    scale: float = 1.0

    def loss(self, model):
        return self.scale * model(self.x).square()


def gains(model, x, scale=1.0):
    layers = gradients_at(model, Given(x, scale))
    return dict(zip(layers, gains_of(list(layers.values())).tolist(), strict=True))


def chain(depth, activation=nn.Identity, *, width=24, gain=1.0):
    torch.manual_seed(0)
    layers = []
    for _ in range(depth):
        layer = nn.Linear(width, width)
        nn.init.orthogonal_(layer.weight, gain)
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


X = torch.randn(64, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("gain", [0.5, 1.0, 3.0])
def test_an_orthogonal_weight_has_its_own_gain_and_nothing_lies_between(gain):
    made = gains(chain(4, gain=gain), X)
    assert list(made) == ["0", "2", "4", "6"]
    assert np.isnan(made["0"][0]), "no gradient at the data"
    assert [w for w, _ in made.values()][1:] == pytest.approx([gain] * 3, rel=1e-5)
    assert [b for _, b in made.values()][:3] == pytest.approx([1.0] * 3, rel=1e-5)
    assert np.isnan(made["6"][1]), "the loss follows"


class Slope(nn.Module):
    def forward(self, x):
        return 0.2 * x


def test_what_lies_between_has_its_own_factor():
    assert [b for _, b in gains(chain(4, Slope), X).values()][:3] == pytest.approx([0.2] * 3, rel=1e-5)
    sigmoid = [b for _, b in gains(chain(5, nn.Sigmoid), X).values()][:4]
    assert all(0.2 < b <= 0.25 for b in sigmoid)


def test_a_relu_in_place_is_measured_as_another():
    plain, in_place = (gains(chain(4, a), X) for a in (nn.ReLU, lambda: nn.ReLU(inplace=True)))
    np.testing.assert_allclose(list(plain.values()), list(in_place.values()), rtol=1e-6)
    assert 0.5 < plain["0"][1] < 0.9


@pytest.mark.parametrize("scale", [1e-28, 1e28])
def test_the_size_of_the_loss_does_not_matter(scale):
    np.testing.assert_allclose(
        list(gains(chain(4, nn.Tanh), X, scale).values()), list(gains(chain(4, nn.Tanh), X).values()), rtol=1e-3
    )


def test_a_skip_connection_is_not_part_of_the_layer_beside_it():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.layer, self.last = (chain(1) for _ in range(3))

        def forward(self, x):
            x = self.first(x)
            return self.last(x + self.layer(x))

    net = Skip()
    with torch.no_grad():
        net.layer[0].weight.mul_(0.01)
    made = gains(net, X)
    assert made["layer.0"][0] == pytest.approx(0.01, rel=1e-5)
    assert made["first.0"][1] > 50  # past the layer, most of the gradient goes


def test_calls_of_one_module_count_together():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.layer = chain(1), chain(1, gain=0.5)

        def forward(self, x):
            return self.layer(self.layer(self.first(x)))

    assert gains(Twice(), X)["layer.0"][0] == pytest.approx(0.5, rel=1e-5)


def test_convolutions_count_and_embeddings_and_norms_do_not():
    net = nn.Sequential(
        nn.Embedding(9, 16), nn.Unflatten(1, (1, 16)), nn.Flatten(2), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(),
        nn.Conv1d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 12, 3),
    )  # fmt: skip
    made = gains(net, torch.arange(9))
    assert list(made) == ["3", "6", "8"]
    assert np.isfinite(made["3"]).all(), "an embedding has a gradient to take"


def test_where_nothing_arrives_no_factor_is_known():
    net = chain(4, nn.ReLU)
    nn.init.constant_(net[4].bias, -1e3)  # dead
    made = gains(net, X)
    assert np.isnan([made["0"], made["2"], made["4"]]).all()
    frozen = chain(3).requires_grad_(False)
    assert list(gains(frozen, X)) == ["0", "2", "4"]
    assert np.isnan(list(gains(frozen, X).values())).all()


def bench(model, *batches):
    return Bench(model, lambda kind: [Given(x) for x in batches], "none was held", RunRecord(), 7, 1 << 24)


def test_what_is_recorded_and_no_trace_is_left():
    model = nn.Sequential(*chain(2, nn.Tanh), nn.Dropout(0.5), nn.BatchNorm1d(24), *chain(1)).train()
    b, state = bench(model, X, X), torch.get_rng_state()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    measure(b)
    assert b.record.facts["backward_gain"] == {"modules": ["0", "2", "5"]}
    steps, values = b.record.series("backward_gain", "2").history()
    assert (steps.tolist(), values.shape) == ([7], (1, 2))
    assert np.isfinite(values).all()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_it_is_measured_in_training_mode():
    torch.manual_seed(0)
    model = nn.Sequential(*chain(1), nn.Dropout(0.75), *chain(1))
    b = bench(model.eval(), X)
    measure(b)
    # What is dropped has no gradient, and the rest has four times as much.
    assert b.record.series("backward_gain", "0").values[0][1] == pytest.approx(4.0, rel=0.1)


def test_without_a_held_batch_it_says_why():
    with pytest.raises(CannotIsolate, match="none was held"):
        measure(bench(nn.Linear(2, 2)))


def test_a_net_without_layers_has_no_rows():
    b = bench(nn.LayerNorm(24), X)
    measure(b)
    assert b.record.facts["backward_gain"] == {"modules": []}
