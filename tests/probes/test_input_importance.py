"""How many inputs the loss hangs on, where it is known."""

import numpy as np
import pytest
import torch
from torch import nn

from benches import bench, in_batches, row
from trainwatch.probes.input_importance import MOST_FEATURES, SAMPLES, measure
from trainwatch.probes.isolation import CannotIsolate


def measured(x, weights, size=64, kind="train"):
    """Of a linear function of the inputs that is the target."""
    model = nn.Linear(x.shape[1], 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))
    batches = in_batches(x, (x @ torch.tensor(weights)), size, function="mse_loss")
    given = bench(model, batches, batches if kind == "val" else ())
    measure(given)
    return row(given, "input_importance", kind)


def drawn(n, features, seed=0):
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed))


def test_those_that_matter_are_counted_whatever_their_units():
    x = drawn(200, 10)
    inputs, needed, alike, samples = measured(x, [1.0, 1.0, 1.0] + [0.0] * 7)
    assert (inputs, needed, samples) == (10, 3, 200)
    assert alike < 0.3
    scaled = x * torch.tensor([1.0, 1000.0, 0.01] + [1e6] * 7)
    assert measured(scaled, [1.0, 0.001, 100.0] + [0.0] * 7)[1] == 3
    assert measured(x, [1.0] * 10)[1] == 9


def test_nine_tenths_of_the_rise_is_asked_for():
    """Shuffling costs twice the square of a slope: 16 : 1 is more than nine tenths, 4 : 1 is less."""
    x = drawn(200, 4)
    assert measured(x, [4.0, 1.0, 0.0, 0.0])[1] == 1
    assert measured(x, [2.0, 1.0, 0.0, 0.0])[1] == 2
    assert np.isnan(measured(x, [4.0, 1.0, 0.0, 0.0])[2])


def test_inputs_that_say_the_same_are_seen():
    x = drawn(200, 4)
    x[:, 1] = -x[:, 0] + 0.1 * x[:, 1]
    assert measured(x, [1.0, 1.0, 0.0, 0.0])[2] > 0.9
    x = drawn(200, 4)
    x[:, 3] = x[:, 0]  # one that the net has no use for
    assert measured(x, [1.0, 1.0, 0.0, 0.0])[2] < 0.3


def test_so_many_samples_of_validation_as_are_needed():
    assert measured(drawn(1000, 3), [1.0, 1.0, 0.0], size=100, kind="val")[3] == -(-SAMPLES // 100) * 100


def test_it_leaves_no_trace():
    x, model = drawn(100, 5), nn.Linear(5, 1)
    kept, state = x.clone(), torch.get_rng_state()
    measure(bench(model, in_batches(x, x[:, 0], function="mse_loss")))
    assert torch.equal(x, kept)
    assert torch.equal(state, torch.get_rng_state())


REFUSED = {
    "many": (drawn(64, MOST_FEATURES + 1), [1.0] * (MOST_FEATURES + 1), "table"),
    "few samples": (drawn(29, 3), [1.0] * 3, "table"),
    "none in use": (drawn(64, 3), [0.0] * 3, "did not rise"),
}


@pytest.mark.parametrize(("x", "weights", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_told_is_refused(x, weights, text):
    with pytest.raises(CannotIsolate, match=text):
        measured(x, weights)


def test_images_are_no_table():
    x = drawn(64, 9).reshape(64, 1, 3, 3)
    given = bench(nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), in_batches(x, torch.arange(64) % 2))
    with pytest.raises(CannotIsolate, match="table"):
        measure(given)
