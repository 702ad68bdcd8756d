"""What small changes of the inputs do, on functions of which it is known."""

import numpy as np
import pytest
import torch
from torch import nn

from benches import bench, blobs, held, in_batches, net, row
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.small_changes import SIZE, measure

X, Y, XV, YV = blobs()


def measured(model, train, val=()):
    given = bench(model, train, val)
    measure(given)
    return row(given, "small_changes", "val" if val else "train")


def linear(weights):
    model = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))
    return model


def gaussian(spreads, n=4000):
    return torch.randn(n, len(spreads), generator=torch.Generator().manual_seed(0)) * torch.tensor(spreads)


def test_a_linear_function_of_independent_inputs_passes_noise_on_as_it_is():
    """Whatever the units of the inputs: a thousandfold feature moves by its own spread."""
    x = gaussian([1.0, 1000.0])
    model = linear([2.0, 0.001])
    found = measured(model, in_batches(x, 0 * x[:, 0], 500, function="mse_loss"))
    size, loss, _, _, against, _, gain, gain_against, samples = found
    assert (size, samples) == (pytest.approx(SIZE), 4000)
    assert gain == pytest.approx(1.0, abs=0.02)
    # The sum of absolute slopes over the root of their squares, each in spreads of its feature.
    assert gain_against == pytest.approx(3.0 / 5.0**0.5, abs=0.05)
    output = x @ torch.tensor([2.0, 0.001])
    moved = output + SIZE * (2.0 * x[:, 0].std() + 0.001 * x[:, 1].std()) * output.sign()
    assert loss == pytest.approx(float((output**2).mean()), rel=1e-3)
    assert against == pytest.approx(float((moved**2).mean()), rel=1e-3)


def test_a_net_that_turns_sharply_passes_more_on():
    x = gaussian([1.0, 1.0], 500)

    class Wave(nn.Module):
        def forward(self, x):
            return torch.sin(20 * x.sum(1))

    batches = in_batches(x, 0 * x[:, 0], 100, function="mse_loss")
    flat, sharp = measured(linear([1.0, 1.0]), batches), measured(Wave(), batches)
    assert sharp[6] > 5 * flat[6]


def test_a_step_against_the_loss_costs_more_than_noise_and_is_taken_on_validation():
    model = net(6, 16, 3)
    plain = nn.functional.cross_entropy(model(XV), YV).item()
    _, loss, noisy, noise_error, against, error, *_, samples = measured(model, in_batches(X, Y), in_batches(XV, YV))
    assert samples == len(XV)
    assert loss == pytest.approx(plain, rel=1e-5)
    assert against - loss > 5 * error > 0
    assert against > noisy
    assert noise_error > 0


def test_a_feature_that_never_changes_stays():
    x = torch.cat([gaussian([1.0], 200), torch.full((200, 1), 3.0)], 1)
    row_ = measured(linear([1.0, 1e3]), in_batches(x, 0 * x[:, 0], 100, function="mse_loss"))
    assert row_[6] == pytest.approx(1.0, abs=0.05)


def test_images_move_by_channel():
    x = torch.randn(64, 2, 3, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 50.0])[:, None, None]

    class Second(nn.Module):
        def forward(self, x):
            return x[:, 1].flatten(1).sum(1) / 50

    row_ = measured(Second(), in_batches(x, torch.zeros(64), 32, function="mse_loss"))
    assert row_[6] == pytest.approx(1.0, abs=0.15)


def test_a_constant_output_has_no_gain():
    row_ = measured(linear([0.0, 0.0]), in_batches(gaussian([1.0, 1.0], 64), torch.ones(64), function="mse_loss"))
    assert np.isnan(row_[6])


def test_models_that_work_in_place_and_recurrent_ones():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.last = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(self.gru(x.mul_(2.0))[0][:, -1])

    x, kept = torch.randn(32, 5, 4), None
    kept = x.clone()
    assert np.isfinite(measured(InPlace(), in_batches(x, torch.arange(32) % 3, 16))).all()
    assert torch.equal(x, kept)


def test_as_many_batches_as_memory_allows():
    x = gaussian([1.0, 1.0], 96)
    given = bench(linear([1.0, 1.0]), in_batches(x, x[:, 0], 32, function="mse_loss"))
    given._most_bytes = 2 * 8 * 32 * 2 * 4  # eight copies of two batches
    measure(given)
    assert row(given, "small_changes", "train")[-1] == 64
    given._most_bytes = 8 * 32 * 2 * 4 - 1
    with pytest.raises(CannotIsolate, match="probe_memory"):
        measure(given)


def test_it_leaves_no_trace():
    model, state = net(6, 16, 3, dropout=0.5, norm=True), torch.get_rng_state()
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    assert measured(model, in_batches(X, Y)) == measured(model, in_batches(X, Y))
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Embedding(5, 3)

    def forward(self, x):
        return self.inner(x)


class Deaf(nn.Module):
    def __init__(self):
        super().__init__()
        self.guess = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return self.guess.expand(len(x), 3)


REFUSED = {
    "words": (Bag(), [held(torch.arange(4), torch.arange(4) % 3)], "no.* numbers"),
    "two lengths": (Deaf(), [held(torch.ones(4, n), torch.zeros(4, dtype=torch.long)) for n in (3, 4)], "shape"),
    "no gradient": (Deaf(), [held(torch.randn(4, 2), torch.zeros(4, dtype=torch.long))], "no gradient"),
}


@pytest.mark.parametrize(("model", "batches", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_moved_is_told(model, batches, text):
    with pytest.raises(CannotIsolate, match=text):
        measured(model, batches)
