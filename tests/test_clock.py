"""Clocks that go back and leap: budgets, flushes and the report stay sane."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainwatch.clock import LEAP, steady
from trainwatch.config import Settings
from trainwatch.monitor import Monitor

DAY, STEPS = 86400.0, 60


def test_a_clock_neither_goes_back_nor_leaps():
    read = steady(iter([100.0, 101.0, 101.5, 1.5, 3.5, 3.5 + DAY, 4.5 + DAY]).__next__)
    assert [read() for _ in range(6)] == [1.0, 1.5, 1.5, 3.5, 3.5 + LEAP, 4.5 + LEAP]


class Jumping:
    """A millisecond passes at each reading; `offset` is what passes besides."""

    def __init__(self):
        self._count, self.offset = itertools.count(), 0.0

    def __call__(self):
        return 1e-3 * next(self._count) + self.offset


def run(jump, settings):
    torch.manual_seed(0)
    model = nn.Linear(8, 2)
    optimizer, clock = torch.optim.SGD(model.parameters(), lr=0.1), Jumping()
    flushes = []
    monitor = Monitor({"default": model}, {"default": optimizer}, settings, clock=clock)
    flush = monitor.flush
    monitor.flush = lambda: flushes.append(monitor.capture.step) or flush()
    for step in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(4, 8)), torch.arange(4) % 2).backward()
        clock.offset += 0.5 + jump * (step == STEPS // 2)
        optimizer.step()
    return monitor.finish(), flushes


@pytest.mark.parametrize("jump", [-DAY, DAY])
def test_a_jump_costs_at_most_one_flush(jump):
    settings = Settings(quiet=True, strict=True, flush_every=10, probes="off", overhead=0.5)
    plain, expected = run(0.0, settings)
    report, flushes = run(jump, settings)
    assert max(after - before for before, after in itertools.pairwise([0, *flushes])) <= 10
    assert len(flushes) <= len(expected) + 1
    cost = report.overhead
    assert all(seconds >= 0 for seconds in cost["seconds"].values())
    assert 0 <= cost["once_seconds"] < LEAP
    assert plain.overhead["run_seconds"] / 2 < cost["run_seconds"] < plain.overhead["run_seconds"] + 1.01 * LEAP
    assert 0 < cost["share"] < 1
    assert report.facts["run"]["steps"] == STEPS
    assert not any("not watched" in line for line in cost["skipped"])
