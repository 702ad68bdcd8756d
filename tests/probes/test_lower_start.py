import pytest
import torch

from benches import bench, blobs, in_batches, net, row
from trainwatch.probes import lower_start

X, Y, XV, YV = blobs()


def tried(lr):
    torch.manual_seed(0)
    model = net(6, 32, 3)
    given = bench(model, in_batches(X, Y), in_batches(XV, YV), torch.optim.Adam(model.parameters(), lr), step=150)
    lower_start.measure(given)
    factor, *rest, _ = row(given, "lower_start", "held")
    return factor, rest


def test_where_steps_are_long_a_fifth_of_the_rate_is_better():
    factor, found = tried(10.0)
    _, usual, lower, _, _ = found[5:]
    assert factor == pytest.approx(0.2)
    assert lower < 0.1 * usual


def test_where_steps_are_short_it_is_not():
    _, found = tried(1e-3)
    assert found[7] > found[6] - 2 * found[8]
