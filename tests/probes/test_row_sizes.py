import numpy as np
import pytest
import torch

from benches import bench, blobs, held, in_batches, net, row
from trainwatch.probes import row_sizes
from trainwatch.probes.isolation import CannotIsolate

X, Y, XV, YV = blobs(200)


def measured(x):
    given = bench(net(6, 3), in_batches(x, Y[: len(x)]))
    row_sizes.measure(given)
    samples, median, largest, far, *places = row(given, "row_sizes", "train")
    return samples, median, largest, far, [int(p) for p in places if p == p]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_samples_of_one_kind_are_alike(scale):
    samples, median, largest, far, places = measured(scale * X)
    assert (samples, far, places) == (200, 0, [])
    assert median == pytest.approx(scale * float(X.square().mean(1).sqrt().median()), rel=1e-2)
    assert 1 < largest < 5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_broken_ones_are_counted_and_found(scale):
    broken = scale * X.clone()
    broken[[40, 70]] *= 1000
    _, _, largest, far, places = measured(broken)
    assert far == 2
    assert largest > 300
    assert places == [0, 8, 0, 6]  # steps and rows of batches of 32


def test_a_long_tail_is_not_broken():
    """Incomes: some are hundreds of times the median, with all between."""
    tail = X.clone()
    tail[:, 0] = 10 ** torch.linspace(-1, 4, len(X))
    assert measured(tail)[2] > 100
    assert measured(tail)[3] == 0


def test_of_many_the_first_five_are_named():
    broken = X.clone()
    broken[::20] *= 1000
    *_, far, places = measured(broken)
    assert far == 10
    assert len(places) == 10


def test_a_number_that_is_none_is_no_size():
    broken = X.clone()
    broken[3, 0], broken[4, 1] = np.inf, np.nan
    assert measured(broken)[3] == 0


REFUSED = {
    "words": ([held(torch.zeros(100, 5, dtype=torch.long), Y[:100])], "not numbers"),
    "few": ([held(X[:50], Y[:50])], "fewer than 60"),
    "nothing": ([held(torch.zeros(100, 6), Y[:100])], "are zero"),
}


@pytest.mark.parametrize(("train", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(train, reason):
    with pytest.raises(CannotIsolate, match=reason):
        row_sizes.measure(bench(net(6, 3), train))
