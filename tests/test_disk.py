"""The place where a run is recorded goes away midway: the training goes on, and one notice says what is lost."""

import errno
import os
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch
from trainwatch.record import read_record

STEPS, AT = 40, 22


def train(directory, event):
    """Train on two classes; what the disk does happens after step `AT`."""
    torch.manual_seed(0)
    x = torch.randn(STEPS * 16, 8)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    settings = {"flush_every": 5, "probes": "off", "overhead": 0.9}
    watch = None if directory is None else trainwatch.watch(model, optimizer, log_dir=directory, settings=settings)
    for step, rows in enumerate(torch.arange(len(x)).split(16)):
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        if step == AT and watch is not None:
            event(directory)
    report = None if watch is None else watch.finish()
    return [*(t.clone() for t in model.state_dict().values()), torch.get_rng_state()], report


def full(monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("trainwatch.record.segments.os.write", write)
    monkeypatch.setattr("trainwatch.tensorboard.writer._OwnWriter._write", write)


def nowhere(directory):
    """As good as read-only, also for root: a file is where the directory was."""
    shutil.rmtree(directory)
    directory.write_text("")


EVENTS = {
    "deleted": (lambda _: lambda d: shutil.rmtree(d / "trainwatch"), "the record was deleted"),
    "cannot be written": (lambda _: nowhere, "the record was deleted"),
    "full": (lambda patch: lambda d: full(patch), "No space left on device"),
}


@pytest.mark.skipif(os.name != "posix", reason="elsewhere what is open cannot be deleted")
@pytest.mark.parametrize("event", EVENTS)
def test_a_disk_that_fails_costs_the_record_and_nothing_else(event, tmp_path, monkeypatch, capsys):
    make, why = EVENTS[event]
    plain, _ = train(None, None)
    directory = tmp_path / "run"
    state, report = train(directory, make(monkeypatch))
    monkeypatch.undo()
    assert all(map(torch.equal, state, plain))
    assert report.facts["run"]["steps"] == STEPS
    assert report.facts["run"]["finished"]
    assert report.overhead["skipped"] is not None
    assert report.verdict != "not-judged"
    failed = [d.where[0] for d in report.diagnoses if d.code == "TW000"]
    assert failed == (["tensorboard", "record files"] if event == "full" else ["record files"])
    printed, told = capsys.readouterr()
    (notice,) = [line for line in told.splitlines() if why in line]
    assert f"step {AT + 3}" in notice
    assert str(directory) in notice
    assert "Traceback" not in told
    last = printed.splitlines()[-1]
    if event == "cannot be written":
        assert last.startswith("The report could not be written to")
        return
    assert last.startswith("Report: ")
    assert why in last
    assert (directory / "trainwatch" / "report.json").is_file()
    if event == "full":
        assert read_record(directory).steps == AT - 2  # of the flush before
