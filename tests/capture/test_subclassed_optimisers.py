"""Optimisers whose step calls that of a torch optimiser that they derive from: torch calls hooks twice."""

import pytest
import torch
from torch import nn

import trainwatch


class Derived(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


def failing():
    raise ZeroDivisionError


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_counts_once(fails):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    torch.optim.SGD(model.parameters(), lr=0.1)  # from then on torch hooks the step of the base as well
    optimizer = Derived(model.parameters(), lr=0.1)
    with trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "probes": "off"}) as watch:
        for step in range(12):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(8, 4)), torch.arange(8) % 2).backward()
            if fails and step == 3:
                with pytest.raises(ZeroDivisionError):
                    optimizer.step(failing)
            optimizer.step()
    assert watch.record.steps == watch.report.facts["run"]["steps"] == 12
    assert watch.record.series("grad_norm", "default").steps.tolist() == list(range(12))
