"""Moments of the numbers that batches are to predict, in training and in validation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainwatch
from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.target_moments import ENTRIES, HELD_BYTES, TargetMoments, moments

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(100, 4, generator=GENERATOR)
Y = torch.poisson(torch.rand(100, 1, generator=GENERATOR) * 5, generator=GENERATOR)


def record(loss, *, y=Y, change=False, own=False):
    torch.manual_seed(0)
    model = nn.Linear(4, y.shape[1])
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    loaders = [DataLoader(TensorDataset(X, y), 30), DataLoader(TensorDataset(X[:50], y[:50]), 30)]
    with trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "probes": "off"}) as watch:
        for _ in range(3):
            for x, target in loaders[0]:
                optimizer.zero_grad()
                out = model(x)
                target = model(x + 1) if own else target
                loss(out, target).backward()
                optimizer.step()
                if change:
                    target.add_(1)
            with torch.no_grad():
                for x, target in loaders[1]:
                    loss(model(x), target)
    return watch.record


def expected(y):
    own = [float(v * np.log(v)) if v else 0.0 for v in y.reshape(-1).tolist()]
    per_sample = y.reshape(len(y), -1).mean(1)
    return [float(y.mean()), float(y.var(unbiased=False)), np.mean(own), float(per_sample.var(unbiased=False)), len(y)]


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.huber_loss, F.poisson_nll_loss])
def test_moments_agree_with_a_loop(loss):
    (stream,) = (found := record(loss)).keys("target_moments")
    series = found.series("target_moments", stream)
    assert stream == loss.__name__
    assert series.steps.tolist() == list(range(12))
    batches = [expected(part) for part in Y.split(30)]
    assert np.allclose(series.values, 3 * batches, rtol=1e-5)


def test_several_numbers_a_sample():
    y = torch.cat([Y, 10 * Y], 1)
    series = record(F.mse_loss, y=y).series("target_moments", "mse_loss")
    assert np.allclose(series.values[:4], [expected(part) for part in y.split(30)], rtol=1e-5)


def test_validation_of_likelihoods_as_a_whole():
    found = record(F.poisson_nll_loss)
    (stream,) = found.keys("val_target_moments")
    series = found.series("val_target_moments", stream)
    assert np.allclose(series.values, 3 * [expected(Y[:50])], rtol=1e-5)
    assert not record(F.mse_loss).keys("val_target_moments")


def test_targets_below_zero_have_no_likelihood_of_counts():
    row = moments(torch.tensor([[[-1.0], [2.0]]]))[0]
    assert row[2].isnan()
    assert row[[0, 1, 3, 4]].tolist() == [0.5, 2.25, 2.25, 2.0]


def test_targets_changed_in_place_are_left_out():
    y = Y.clone()
    found = record(F.mse_loss, y=y, change=True)
    assert not found.keys("target_moments")


def test_targets_with_a_graph_are_held_without_it():
    series = record(F.mse_loss, own=True).series("target_moments", "mse_loss")
    assert len(series) == 12
    assert np.isfinite(series.values[:, :2]).all()


def flushed(held):
    rows, reads = [], DeferredReads()
    held.flush(reads, lambda stream, steps, values: rows.append((stream, steps.tolist(), values)))
    reads.deliver(True)
    return rows


def test_of_several_batches_in_a_step_the_first_counts():
    held = TargetMoments()
    for value in (1.0, 2.0):
        held.hold("mse_loss", torch.full((3,), value), 0)
    held.hold("mse_loss", torch.full((5,), 3.0), 1)
    ((stream, steps, rows),) = flushed(held)
    assert (stream, steps) == ("mse_loss", [0, 1])
    assert rows[:, 0].tolist() == [1.0, 3.0]
    assert flushed(held) == []


def test_memory_is_bounded_and_large_batches_are_thinned_out():
    held, rows = TargetMoments(), HELD_BYTES // 4 // 1000 // 4
    for step in range(6):
        held.hold("mse_loss", torch.arange(rows)[:, None].expand(rows, 1000).float().contiguous(), step)
    ((_, steps, values),) = flushed(held)
    assert steps == [0, 1, 2, 3]
    assert np.allclose(values[:, 0], (rows - 1) / 2, rtol=0.01)
    assert (values[:, 4] <= ENTRIES).all()


@pytest.mark.parametrize("target", [torch.tensor(3.0), torch.zeros(0, 1), torch.zeros(2, dtype=torch.complex64)])
def test_what_has_no_samples_or_no_order_is_left_out(target):
    held = TargetMoments()
    held.hold("mse_loss", target, 0)
    assert flushed(held) == []
