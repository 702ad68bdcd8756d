"""Faults of trainwatch's own, one part at a time: the training goes on bit for bit, and the report says what failed."""

import os
import re

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainwatch
from trainwatch.capture.classes import ClassCounter
from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.gradients import GradientRing
from trainwatch.capture.held import HeldBatches
from trainwatch.capture.losses import StepLosses
from trainwatch.capture.motion import Motion
from trainwatch.capture.nonfinite import FirstNonFinite
from trainwatch.capture.passes import PassBook
from trainwatch.capture.path import Path
from trainwatch.capture.penalties import Penalties
from trainwatch.capture.rates import Rates
from trainwatch.capture.run_capture import RunCapture
from trainwatch.capture.run_facts import RunFacts
from trainwatch.capture.trained_again import TrainedAgain
from trainwatch.capture.validation import ValidationWatch
from trainwatch.outlets import Outlets
from trainwatch.probes.bench import Bench
from trainwatch.probes.governor import Governor
from trainwatch.record import SegmentWriter
from trainwatch.report import Report


class Planted(Exception):
    pass


def fail(*_, **__):
    raise Planted("planted")


PROBES = {"activations": 10, "train_eval": 10}  # two that are quick


def train(log_dir=None, *, epochs=4, watched=True, **options):
    """A small real training; the weights and optimiser state at the end, and the report."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(96, 8), torch.randint(0, 3, (96,))
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    criterion = nn.CrossEntropyLoss()
    loader = DataLoader(TensorDataset(inputs[:64], labels[:64]), batch_size=8, shuffle=True)
    holdout = DataLoader(TensorDataset(inputs[64:], labels[64:]), batch_size=16)
    watch = None
    if watched:
        settings = {"quiet": True, "flush_every": 5, "probes": PROBES, **options.pop("settings", {})}
        watch = trainwatch.watch(model, optimizer, log_dir=log_dir, settings=settings, **options)
    for _ in range(epochs):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            for x, y in holdout:
                criterion(model(x), y)
    report = watch.finish() if watch is not None else None
    state = [*model.state_dict().values(), *(t for s in optimizer.state.values() for t in s.values())]
    return state, report, torch.get_rng_state()


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


PARTS = {
    "wiring": [
        (RunFacts, "start"),
        (RunFacts, "note_order"),
        (RunFacts, "note_loader"),
        (RunFacts, "add_regularisation"),
    ],
    "losses": [
        (StepLosses, "add"),
        (StepLosses, "backward"),
        (StepLosses, "commit"),
        (StepLosses, "flush"),
        (TrainedAgain, "called"),
    ],
    "gradients": [(GradientRing, "measure"), (GradientRing, "commit"), (GradientRing, "flush")],
    "penalties": [(Penalties, "look"), (Penalties, "commit"), (Penalties, "flush")],
    "motion": [(Motion, "begin"), (Motion, "stepped"), (Motion, "flush"), (Path, "take"), (Path, "rows")],
    "classes": [(ClassCounter, "hold"), (ClassCounter, "flush")],
    "validation": [
        (ValidationWatch, "add"),
        (ValidationWatch, "forward_seen"),
        (ValidationWatch, "close"),
        (PassBook, "close"),
    ],
    "held batches": [(HeldBatches, "offer"), (HeldBatches, "note_loss")],
    "first non-finite": [(FirstNonFinite, name) for name in ("begins", "called", "loss", "gradient")],
    "probes": [(Governor, "next")],
    "probe activations": [(Bench, "batches"), (Bench, "model")],
    "rates": [(Rates, "note"), (Rates, "flush")],
    "steps": [(RunCapture, "_commit_losses")],
    "reads": [(DeferredReads, "deliver"), (PassBook, "_arrived")],
    "record files": [(SegmentWriter, "flush"), (SegmentWriter, "close")],
    "tensorboard": [(Outlets, "open"), (Outlets, "curves"), (Outlets, "finish")],
    "notices": [(Outlets, "look")],
    "report": [(Outlets, "show")],
    "report files": [(Report, "save")],
}
CASES = [(part, owner, name) for part, sites in PARTS.items() for owner, name in sites]


@pytest.mark.parametrize(("part", "owner", "name"), CASES, ids=[f"{p}-{o.__name__}.{n}" for p, o, n in CASES])
def test_a_fault_in_any_part_leaves_the_training_alone_and_is_reported(part, owner, name, monkeypatch, tmp_path):
    plain, _, rng = train(watched=False)
    monkeypatch.setattr(owner, name, fail)
    state, report, rng_after = train(tmp_path)
    assert same(state, plain)
    assert torch.equal(rng, rng_after)
    if (owner, name) in {(Outlets, "show"), (Report, "save"), (Outlets, "finish"), (SegmentWriter, "close")}:
        return  # fails after the report was made
    internal = [d for d in report.diagnoses if d.code == "TW000"]
    places = [d.where for d in internal]
    if owner is Bench:  # what all probes are given: each one that was asked for fails once
        assert all(place[0].startswith("probe ") for place in places)
        assert len(places) == len(set(places))
        assert (part,) in places
    else:
        assert places == [(part,)]
    assert all("Planted" in d.summary for d in internal)
    assert all("planted" in d.evidence[0].note for d in internal)


def test_the_engine_failing_leaves_a_report_that_judges_nothing(monkeypatch):
    plain, _, _ = train(watched=False)
    monkeypatch.setattr("trainwatch.monitor.judge", fail)
    state, report, _ = train()
    assert same(state, plain)
    assert report.verdict == "not-judged"
    assert "engine" in next(iter(report.not_checked.values()))


def test_a_rule_that_raises_is_left_out(monkeypatch):
    from trainwatch.rules.tw201_overfitting import Overfitting

    monkeypatch.setattr(Overfitting, "check", fail)
    _, report, _ = train()
    assert "TW201" in report.not_checked
    assert [d.where for d in report.diagnoses if d.code == "TW000"] == [("rule TW201",)]


@pytest.mark.parametrize(("part", "lost"), [("losses", "TW301"), ("gradients", "TW301"), ("validation", "TW201")])
def test_rules_whose_measures_are_lost_are_not_checked(part, lost, monkeypatch):
    owner, name = {"losses": (StepLosses, "add"), "gradients": (GradientRing, "measure")}.get(
        part, (ValidationWatch, "add")
    )
    monkeypatch.setattr(owner, name, fail)
    _, report, _ = train()
    assert "TW000" in report.not_checked[lost]


def test_notices_that_fail_are_contained(monkeypatch):
    monkeypatch.setattr("trainwatch.live.LiveFindings.look", fail)
    plain, _, _ = train(watched=False)
    state, report, _ = train(on_finding=fail)
    assert same(state, plain)
    assert [d.where for d in report.diagnoses] == [("notices",)]


def accumulating(steps=60, **options):
    """Gradients that are never zeroed: found while it trains."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = trainwatch.watch(model, optimizer, settings={"flush_every": 5, "probes": "off"}, **options)
    for _ in range(steps):
        nn.functional.cross_entropy(model(torch.randn(8, 4)), torch.randint(0, 2, (8,))).backward()
        optimizer.step()
    return watch


def test_a_callback_of_the_user_that_raises_is_contained_and_named_as_theirs(capsys):
    report = accumulating(on_finding=fail).finish()
    (fault,) = [d for d in report.diagnoses if d.code == "TW000"]
    assert fault.where == ("on_finding",)
    assert fault.summary.startswith("the on_finding that was given failed")
    assert "TW704" in {d.code for d in report.findings()}
    assert "TW704" in capsys.readouterr().out, "the report is printed all the same"


@pytest.mark.parametrize(
    ("observe", "words"),
    [
        (lambda watch: watch.observe_train(None), "loss must be a number or a tensor of one, got NoneType"),
        (lambda watch: watch.observe_train(0.3, {"a": 1}), "outputs must be a tensor, or numbers .*, got dict"),
        (lambda watch: watch.observe_val(0.3, [1.0], ["cat"]), "targets must be a tensor, or numbers .*, got list"),
        (lambda watch: watch.epoch_end(accuracy="good"), "the metric accuracy must be a number .*, got str"),
    ],
)
def test_what_cannot_be_observed_is_told_in_the_report(observe, words):
    watch = accumulating(5)
    observe(watch)
    (fault,) = [d for d in watch.finish().diagnoses if d.code == "TW000"]
    assert re.search(words, fault.summary)
    assert "own" not in fault.summary


def test_strict_raises(monkeypatch):
    monkeypatch.setattr(GradientRing, "measure", fail)
    with pytest.raises(Planted):
        train(settings={"strict": True})


def test_an_exception_of_the_users_own_still_yields_the_report(tmp_path):
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watching = trainwatch.watch(model, optimizer, log_dir=tmp_path, settings={"quiet": True})
    with pytest.raises(KeyboardInterrupt), watching:
        for step in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.ones(3, 4)), torch.zeros(3, dtype=torch.long)).backward()
            optimizer.step()
            if step == 12:
                raise KeyboardInterrupt
    assert watching.report.facts["run"]["steps"] == 13
    assert watching.report.facts["run"]["ended_by"] == "KeyboardInterrupt"
    assert trainwatch.diagnose(tmp_path).to_json() == watching.report.to_json()


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_directory_that_cannot_be_made_is_an_error_at_set_up(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    model = nn.Linear(4, 2)
    with pytest.raises(trainwatch.record.RecordError, match="file"):
        trainwatch.watch(model, torch.optim.SGD(model.parameters(), 0.1), log_dir=tmp_path / "file")
    assert not model._forward_hooks


def test_a_fault_within_a_forward_pass_lets_no_losses_gather(monkeypatch):
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 2)

        def forward(self, x, y):
            return nn.functional.cross_entropy(self.net(x), y)

    model = WithLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True})
    monkeypatch.setattr(ValidationWatch, "add", fail)
    model.eval()
    model(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))  # with gradients: its loss is viewed within the pass
    model.train()
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(8, 4), torch.zeros(8, dtype=torch.long)).backward()
        optimizer.step()
    assert "validation" in watch._monitor.containment.off
    assert len(watch._monitor.capture._within) <= 1
    watch.finish()
