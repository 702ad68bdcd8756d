"""How many validation predictions change from pass to pass."""

import pytest
import torch
from torch import nn

import trainwatch
from trainwatch.config import Settings

X, Y = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 2
CRITERION = nn.CrossEntropyLoss()


class Given(nn.Module):
    """Gives class 1 to so many samples of a batch as it is told, and follows a parameter besides."""

    def __init__(self):
        super().__init__()
        self.scale, self.ones = nn.Parameter(torch.ones(())), 0

    def forward(self, x):
        chosen = (torch.arange(len(x)) < self.ones).float()
        return torch.stack([1 - chosen, chosen], 1).reshape(len(x), 2, *(1,) * (x.ndim - 2)) * self.scale


def passes(ones, orders=None, targets=Y):
    """Churn recorded in a run with a validation pass after each step."""
    model = Given()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    watch = trainwatch.watch(model, optimizer, settings=Settings(quiet=True, strict=True, probes="off"))
    for n, count in enumerate(ones):
        model.ones = count
        optimizer.zero_grad()
        CRITERION(model(X), Y).backward()
        optimizer.step()
        with torch.no_grad():
            order = torch.arange(64) if orders is None else orders[n]
            CRITERION(model(X[order] + 1.0), targets[order])
    watch.finish()
    found = watch.record.series("val_churn", "val")
    return None if found is None else list(zip(found.steps.tolist(), found.values.tolist(), strict=True))


def test_share_of_predictions_that_are_others_than_before():
    assert passes([0, 16, 16, 8]) == [(2, 0.25), (3, 0.0), (4, 0.125)]


def test_samples_without_a_target_do_not_count():
    targets = Y.clone()
    targets[32:] = -100
    assert passes([0, 16], targets=targets) == [(2, 0.5)]


def test_passes_in_another_order_are_not_compared():
    forward, back = torch.arange(64), torch.arange(64).flip(0)
    assert passes([0, 16, 32], [forward, back, back]) is None
    # One that comes late ends it: what follows cannot be told from other samples.
    assert passes([0, 16, 32, 8], [forward, forward, back, forward]) == [(2, 0.25)]


def test_regression_has_none():
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, settings=Settings(quiet=True, strict=True, probes="off"))
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X), X[:, :1]).backward()
        optimizer.step()
        with torch.no_grad():
            nn.functional.mse_loss(model(X + 1.0), X[:, :1])
    watch.finish()
    assert not watch.record.keys("val_churn")


@pytest.mark.parametrize("n", [4096, 4097, 10_000])
def test_a_bounded_number_of_samples_is_followed(n):
    from trainwatch.capture.passes import FOLLOWED, _followed

    predicted = torch.arange(n) % 3
    found = _followed(torch.zeros(n, dtype=torch.long), predicted, 3)
    assert len(found) <= FOLLOWED
    step = -(-n // FOLLOWED)
    assert torch.equal(found.long(), predicted[::step])
