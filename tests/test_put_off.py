"""What the budget never allowed is told of every rule that asked for it and found nothing without it."""

import numpy as np
import torch
import torch.nn.functional as F
from synthetic import fit_record
from torch import nn

import trainwatch
from trainwatch.config import Settings
from trainwatch.engine import judge

NO_TIME = "in part: there was no time for the experiment "
LEARNING = np.linspace(2.3, 0.9, 20)
SETTINGS = Settings(select=("TW201", "TW204"), strict=True)


def judged(losses, *put_off):
    loss = {"function": "cross_entropy", "reduction": "mean", "arguments": {}, "classes": 10}
    record = fit_record(losses, training=losses, loss={"cross_entropy": loss})
    record.set_fact("put_off", list(put_off))
    return judge(record, SETTINGS)


def test_a_rule_that_found_nothing_and_asks_for_more_judged_in_part():
    report = judged(LEARNING, "reference", "shift", "wider")
    assert report.not_checked == {"TW204": NO_TIME + "reference, wider"}
    assert report.verdict == "healthy"


def test_nothing_is_said_where_all_was_measured_or_nobody_asks():
    assert judged(LEARNING).not_checked == {}
    assert judged(LEARNING, "shift").not_checked == {}


def test_nor_of_a_rule_that_has_found_something():
    rising = np.r_[np.linspace(2.3, 0.9, 8), np.linspace(0.9, 2.0, 12)]
    record = fit_record(rising)
    record.set_fact("put_off", [r.kind for rule in SETTINGS.active_rules() for r in rule.asks(record)])
    report = judge(record, SETTINGS)
    assert [d.code for d in report.diagnoses] == ["TW201"]
    assert "TW201" not in report.not_checked


def test_a_run_that_left_no_time_says_so(monkeypatch):
    monkeypatch.setattr("trainwatch.monitor.LAST_ROUND", 0.0)
    monkeypatch.setattr("trainwatch.monitor.FLOOR_PER_STEP", 0.0)
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3), torch.randn(64, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "overhead": 1e-9})
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
        optimizer.step()
        with torch.no_grad():
            F.cross_entropy(model(x), x[:, :3].argmax(1))
    report = watch.finish()
    assert {"one_batch", "reference"} <= {*watch.record.facts["put_off"]}
    assert any(reason.startswith(NO_TIME) for reason in report.not_checked.values())
