"""Runs that share a process: at once, one after another, in workers of a loader, in a cell that is run again."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

import trainwatch
from trainwatch.record import read_record
from trainwatch.report import Report

QUIET = {"quiet": True, "strict": True, "flush_every": 5, "probes": "off", "overhead": 0.9}
X = torch.randn(160, 8, generator=torch.Generator().manual_seed(3))
Y = (X[:, 0] > 0).long()


def made(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def step(model, optimizer, rows):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(X[rows]), Y[rows])
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def losses(watch):
    return watch.record.series("train_loss", "cross_entropy").values.tolist()


def test_two_runs_at_once_are_recorded_apart():
    plain = [[step(*net, rows) for rows in torch.arange(160).split(16)] for net in (made(0), made(1))]
    one, two = made(0), made(1)
    watches = [trainwatch.watch(*net, settings=QUIET) for net in (one, two)]
    rows = torch.arange(160).split(16)
    for some in rows:
        step(*one, some)
        step(*two, some)
    watches[0].finish()
    seen = losses(watches[0]), losses(watches[1])
    for some in rows:
        step(*two, some)
    watches[1].finish()
    assert seen[0] == pytest.approx(plain[0], rel=1e-6)
    assert losses(watches[1])[:10] == pytest.approx(plain[1], rel=1e-6)
    assert [w.record.steps for w in watches] == [10, 20]
    assert not hasattr(F, "_trainwatch_cross_entropy")


def cell(directory, model=None):
    """A cell of a notebook that forgets to finish."""
    model, optimizer = made() if model is None else (model, torch.optim.SGD(model.parameters(), lr=0.1))
    watch = trainwatch.watch(model, optimizer, log_dir=directory, settings=QUIET)
    for rows in torch.arange(160).split(16):
        step(model, optimizer, rows)
    return model, watch


@pytest.mark.parametrize("same", [True, False], ids=["the same model", "a new one"])
def test_a_cell_that_is_run_again_ends_the_first_run_and_keeps_its_record(same, tmp_path):
    model, first = cell(tmp_path)
    again, second = cell(tmp_path, model if same else None)
    assert first.report is not None
    assert second.report is None
    hooks = len(again._forward_hooks), len(again._forward_pre_hooks)
    second.finish()
    assert hooks == (1, 1)
    assert not model._forward_hooks
    assert not again._forward_hooks
    assert not hasattr(F, "_trainwatch_cross_entropy")
    kept, latest = tmp_path / "trainwatch" / "previous-1", tmp_path / "trainwatch"
    assert read_record(kept).steps == read_record(latest).steps == 10
    assert Report.from_json((kept / "report.json").read_text()).verdict == first.report.verdict
    assert not first.record.faults
    assert not second.record.faults


def test_an_epoch_that_ends_after_the_run_is_no_news(tmp_path):
    _, watch = cell(tmp_path)
    report = watch.finish()
    watch.epoch_end(accuracy=0.5)
    assert watch.report is report
    assert not watch.record.has("metric")
    assert not watch.record.faults


class Scored(Dataset):
    """Data that refer to the model: each sample is what it predicts, beside its loss."""

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 64

    def __getitem__(self, i):
        hooks = len(self.model._forward_hooks)
        with torch.no_grad():
            return F.cross_entropy(self.model(X[i : i + 1]), Y[i : i + 1]), X[i], Y[i], hooks


@pytest.mark.parametrize("how", ["fork", pytest.param("forkserver", marks=pytest.mark.long)])
def test_workers_of_a_loader_inherit_no_watch(how, tmp_path):
    if how not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {how} on this system")

    def train(directory):
        model, optimizer = made()
        watch = directory and trainwatch.watch(model, optimizer, log_dir=directory, settings=QUIET)
        workers = DataLoader(Scored(model), batch_size=16, num_workers=2, multiprocessing_context=how, shuffle=True)
        hooked = 0
        for _, x, y, hooks in workers:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            hooked += int((hooks > 0).sum()) if how == "fork" else 0  # a pickle holds idle ones
        if watch:
            watch.finish()
        return [*(t.clone() for t in model.state_dict().values()), torch.get_rng_state()], watch, hooked

    plain, *_ = train(None)
    state, watch, hooked = train(tmp_path)
    assert all(map(torch.equal, plain, state))
    assert hooked == 0
    assert watch.record.steps == 4
    assert not watch.record.has("val_loss")
    stored = read_record(tmp_path)
    assert "damage" not in stored.facts
    assert stored.series("train_loss", "cross_entropy").values.tolist() == losses(watch)


FORKING = """
import os, sys, torch
import torch.nn.functional as F
import trainwatch

torch.set_num_threads(1)  # threads of a process are not there in one that is forked from it
model = torch.nn.Linear(8, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
settings = {"flush_every": 3, "probes": "off", "overhead": 0.9}
watch = trainwatch.watch(model, optimizer, log_dir=sys.argv[1], settings=settings)

def train(steps):
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(4, 8)), torch.arange(4) % 2).backward()
        optimizer.step()

train(5)
if os.fork() == 0:
    train(20)  # what a child does is its own
    watch.epoch_end(loss=1.0)
    sys.exit()  # by way of atexit, and of buffers that are written then
os.wait()
print("parent")
train(5)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_writes_and_prints_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", FORKING, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, _, after = done.stdout.partition("parent\n")
    assert before == ""
    assert after.count("Record and report:") == 1
    record = read_record(tmp_path)
    assert "damage" not in record.facts
    assert record.facts["run"]["steps"] == 10
    assert record.series("train_loss", "cross_entropy").steps.tolist() == list(range(10))
