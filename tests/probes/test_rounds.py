"""Probes within a run: the budget that they keep, by a clock that only moves when told, and how they fail."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch
from trainwatch.config import PROBE_KINDS, Settings
from trainwatch.monitor import Monitor
from trainwatch.probes import rounds
from trainwatch.probes.isolation import CannotIsolate

X, Y = torch.randn(64, 4), torch.randint(0, 3, (64,))


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run(monkeypatch, *, cost, steps=400, step_takes=1.0, error=None, worth=0, **settings):
    """A training whose steps take a second each, under a probe of a given cost; (monitor, steps at which it ran).

    Until it has run, the probe is taken to cost as much as `worth` steps.
    """
    clock, ran = Clock(), []

    def probe(bench):
        ran.append(bench.step)
        clock.now += cost
        if error is not None:
            raise error

    for kind in rounds.PROBES:
        monkeypatch.setitem(rounds.PROBES, kind, probe if kind == "activations" else lambda bench: None)
    monkeypatch.setitem(rounds.STEPS, "activations", worth)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    chosen = Settings(quiet=True, flush_every=10, **settings)
    monitor = Monitor({"default": model}, {"default": optimizer}, chosen, clock=clock)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
        clock.now += step_takes
    during = list(ran)
    monitor.finish()
    return monitor, during, ran


@pytest.mark.parametrize(("cost", "overhead"), [(0.1, 0.02), (1.0, 0.02), (1.0, 0.1)])
def test_probes_keep_the_budget(cost, overhead, monkeypatch):
    monitor, during, _ = run(monkeypatch, cost=cost, overhead=overhead)
    assert during[0] == 20
    spent = cost * len(during)
    assert spent <= max(overhead * 400, cost)
    assert monitor.report.overhead["share"] <= overhead


def test_before_its_first_time_a_probe_is_taken_to_be_worth_so_many_steps(monkeypatch):
    assert rounds.STEPS["activations"] > 0
    assert run(monkeypatch, cost=0.1, worth=3)[1][0] == 150, "2 % of 150 s pay for three steps"


def test_a_dear_probe_waits_and_the_report_says_so(monkeypatch):
    monitor, during, _ = run(monkeypatch, cost=3.0)
    assert during[0] == 20
    assert 290 <= during[1] <= 310, "2 % of 300 s pay for two of 3 s"
    assert any(told.startswith("probe activations: put off") for told in monitor.report.overhead["skipped"])


def test_the_floor_lets_a_cheap_probe_run_however_short_the_steps_are(monkeypatch):
    _, during, _ = run(monkeypatch, cost=1e-4, step_takes=1e-5)
    assert during == [20, 40, 80, 160, 320]


@pytest.mark.parametrize(("cost", "again"), [(1.0, True), (6.0, False)])
def test_the_round_at_the_end_takes_five_seconds_at_most(cost, again, monkeypatch):
    _, during, ran = run(monkeypatch, cost=cost, steps=215)
    assert ran[len(during) :] == ([215] if again else [])


def test_off_is_off(monkeypatch):
    assert run(monkeypatch, cost=0.0, probes="off")[2] == []


def test_a_mapping_runs_it_as_often_as_told(monkeypatch):
    _, during, _ = run(monkeypatch, cost=9.0, steps=100, probes={"activations": 30})
    assert [step // 30 for step in during] == [1, 2, 3]


def test_a_mapping_runs_no_other_kind_at_the_end_either(monkeypatch):
    others = []
    for kind in set(rounds.PROBES) - {"activations"}:
        monkeypatch.setitem(rounds.PROBES, kind, lambda bench, kind=kind: others.append(kind))
    _, during, ran = run(monkeypatch, cost=0.0, steps=100, probes={"activations": 30})
    assert ran[len(during) :] == [100]
    assert others == []


def test_what_cannot_be_isolated_is_told_by_the_rules_that_needed_it(monkeypatch):
    monitor, _, _ = run(monkeypatch, cost=0.0, steps=60, error=CannotIsolate("it holds a socket"))
    assert monitor.report.not_checked["TW304"] == "not measured: it holds a socket"
    assert not monitor.record.faults


def test_a_fault_switches_the_probe_off_and_nothing_else(monkeypatch):
    monitor, _, ran = run(monkeypatch, cost=0.0, steps=60, error=ZeroDivisionError("of its own"))
    assert ran == [20]
    assert [f["part"] for f in monitor.record.faults] == ["probe activations"]
    assert "TW304" in monitor.report.not_checked
    assert "TW601" not in monitor.report.not_checked


def test_settings_know_every_probe():
    assert set(PROBE_KINDS) == set(rounds.PROBES) == set(rounds.QUANTITIES)


def test_probes_are_not_heard_as_training():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    settings = {"quiet": True, "strict": True, "probes": "all", "flush_every": 15}
    with trainwatch.watch(model, optimizer, settings=settings) as watch:
        for _ in range(30):
            optimizer.zero_grad()
            F.cross_entropy(model(X), Y).backward()
            optimizer.step()
    assert watch.record.steps == 30
    assert len(watch.record.series("train_loss", "cross_entropy").steps) == 30
    assert not watch.record.has("val_loss")
    assert len(watch.record.series("activity", "1:relu")) == 2
