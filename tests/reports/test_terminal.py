import io
import sys

import torch
from torch import nn
from tqdm import tqdm

import trainwatch
from trainwatch.report import Report
from trainwatch.reports.notice import all_well
from trainwatch.reports.terminal import tell


class Terminal(io.StringIO):
    """Shows what was written as a terminal would: a carriage return goes back to the start of the line."""

    def lines(self):
        shown = []
        for line in self.getvalue().split("\n"):
            cells = []
            for part in line.split("\r"):
                cells[: len(part)] = part
            shown.append("".join(cells).rstrip())
        return shown


def on_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_a_line_stands_above_the_bar_and_the_bar_goes_on_below(monkeypatch):
    terminal = on_terminal(monkeypatch)
    bar = tqdm(range(3), file=sys.stderr, mininterval=0, ncols=60)
    bar.update()
    tell("trainwatch: step 1  TW201 overfitting")
    bar.update()
    bar.close()
    first, second, _ = terminal.lines()
    assert first == "trainwatch: step 1  TW201 overfitting"
    assert "2/3" in second


def test_without_any_bar_it_is_a_line(monkeypatch):
    terminal = on_terminal(monkeypatch)
    monkeypatch.delitem(sys.modules, "tqdm.std")
    tell("one")
    assert terminal.lines() == ["one", ""]


def train(quiet):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(64, 4), torch.arange(64) % 2
    settings = {
        "quiet": quiet,
        "strict": True,
        "flush_every": 5,
        "select": ("TW302",),
        "probes": "off",
        "overhead": 0.9,
    }
    watch = trainwatch.watch(model, optimizer, settings=settings)
    for _ in tqdm(range(80), file=sys.stderr, mininterval=0, ncols=60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    watch.finish()


def test_a_sound_run_is_said_once_to_be_watched(monkeypatch):
    terminal = on_terminal(monkeypatch)
    train(quiet=False)
    said = [line for line in terminal.lines() if "trainwatch" in line]
    assert len(said) == 1
    assert said[0].endswith("watching, nothing wrong so far")


def test_quiet_says_nothing(monkeypatch, capsys):
    terminal = on_terminal(monkeypatch)
    train(quiet=True)
    assert [line for line in terminal.lines() if "trainwatch" in line] == []
    assert capsys.readouterr().out == ""


def test_how_many_rules_are_blind():
    report = Report("healthy", not_checked={"TW201": "no validation loss was seen"})
    assert all_well(report, 1200) == "step 1,200  watching, nothing wrong so far (1 rule cannot judge yet)"
