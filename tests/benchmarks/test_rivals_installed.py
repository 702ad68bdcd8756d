"""What installed packages say is heard in our codes, and they are attached without a trace."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.rivals import installed, tuning
from benchmarks.rivals.installed import HOOKED, READERS, attached
from benchmarks.rivals.installed.adapter import Adapter, once
from benchmarks.rivals.installed.attached import Attached
from benchmarks.rivals.installed.logs import log_of
from benchmarks.rivals.table import better, heard
from benchmarks.zoo.scenario import scenarios
from benchmarks.zoo.score import Outcome, Said
from trainwatch.record import RunRecord
from trainwatch.rules import all_rules


@pytest.mark.parametrize("name", [*HOOKED, *READERS])
def test_every_alarm_may_be_read_as_something_that_we_know(name):
    codes = installed.adapter(name).codes
    assert codes
    for alarm, some in codes.items():
        assert some, alarm
        assert some <= {*all_rules()}, alarm


def test_warnings_count_as_published_and_remarks_where_tuning_heeds_them():
    said = {
        "published": [("overfitting", "warning"), ("plateau", "info"), ("weather", "warning")],
        "other": [("plateau", "info"), ("overfitting", "warning"), ("spikes", "warning")],
    }
    codes = installed.adapter("trainspotter").codes
    assert heard("trainspotter", said).causes == (codes["overfitting"], frozenset({"other"}))
    heeded = {"setting": "other", "warnings": ["overfitting"], "remarks": ["plateau"]}
    assert heard("trainspotter", said, heeded).causes == (codes["plateau"], codes["overfitting"])


def test_an_alarm_is_kept_once_and_as_a_warning_if_it_ever_was_one():
    assert once([("a", "info"), ("b", "info"), ("a", "critical")]) == [("a", "warning"), ("b", "info")]


@pytest.mark.parametrize("name", [n for n in (*HOOKED, *READERS) if n in tuning.kept()])
def test_what_is_tuned_is_of_the_package(name):
    found, adapter = tuning.kept()[name], installed.adapter(name)
    assert found["setting"] in adapter.settings
    assert {*found["warnings"], *found["remarks"]} <= set(adapter.codes)


class Spy(Adapter):
    """Notes what it is told."""

    codes = {"seen": frozenset({"TW601"})}  # noqa: RUF012

    def __init__(self, model, optimizer):
        super().__init__(model, optimizer)
        self.told = []

    def before_step(self, step, inputs, targets, loss):
        self.told.append(("before", step, len(targets), self.model.weight.grad is not None))

    def after_step(self, step, loss):
        self.told.append(("after", step))

    def judge(self, log, **thresholds):
        return [("seen", "warning")] * len(self.told)


class Broken(Spy):
    def after_step(self, step, loss):
        raise RuntimeError("no such luck")


def trained(monkeypatch, **adapters):
    monkeypatch.setattr(attached, "adapter_of", adapters.get)
    torch.manual_seed(0)
    model, criterion = nn.Linear(2, 1), nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(8, 2), torch.randn(8, 1)
    with Attached(tuple(adapters), model, optimizer, loss_fn=criterion) as watch:
        with torch.no_grad():
            criterion(model(x), y)  # before the first step: no pass
        for _ in range(2):
            for part in (0, 4):  # two batches a step
                criterion(model(x[part : part + 4]), y[part : part + 4]).backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                criterion(model(x[:6]), y[:6])
                criterion(model(x[6:]), y[6:])
                whole = float(nn.functional.mse_loss(model(x), y))
        watch.epoch_end(accuracy=1.0)
    return watch, model, whole


def test_a_package_is_told_of_each_step_and_the_log_holds_means(monkeypatch):
    watch, _, whole = trained(monkeypatch, spy=Spy)
    assert watch.said == {"spy": {"published": [("seen", "warning")] * 4}}
    assert len(watch.log.loss) == len(watch.log.grad_norm) == 2
    assert watch.log.lr == [0.1, 0.1]
    assert list(watch.log.validation) == [0, 1]
    assert watch.log.validation[1] == pytest.approx(whole)


def test_a_package_that_raises_is_left_alone_and_the_others_go_on(monkeypatch):
    watch, _, _ = trained(monkeypatch, broken=Broken, spy=Spy)
    assert watch.errors == {"broken": "RuntimeError('no such luck')"}
    assert len(watch.said["spy"]["published"]) == 4
    assert len(watch.said["broken"]["published"]) == 1  # told of one step, then no more


def test_the_training_is_what_it_is_without(monkeypatch):
    _, model, _ = trained(monkeypatch, spy=Spy)
    _, alone, _ = trained(monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), alone.parameters(), strict=True))
    assert not model._forward_pre_hooks


def test_a_log_is_drawn_from_a_record():
    record = RunRecord()
    record.set_fact("validation", {"val": {"primary": True, "kind": "val"}})
    record.append("train_loss", "mse_loss", [0, 1], [3.0, 1.0])
    record.append("grad_norm", "default", [0, 1], [[3.0, 4.0], [0.0, 2.0]])
    record.append("lr", "default/0", 0, 0.1)
    record.append("val_loss", "val", 2, 0.5)
    log = log_of(record)
    assert (log.loss, log.grad_norm) == ([3.0, 1.0], [5.0, 2.0])
    assert log.lr == pytest.approx([0.1, 0.1])
    assert log.validation == {1: 0.5}


def test_cases_of_the_held_out_half_are_not_told():
    sound = next(s for s in scenarios("tuning", "healthy_digits") if s.form == "base")

    def outcomes(half):
        faulty = replace(sound, half=half, planted=True, truth=("TW601",))
        return [Outcome(faulty, 0, Said(()))], [Outcome(faulty, 0, Said((frozenset({"TW601"}),)))]

    assert better(*outcomes("tuning")) == ["healthy_digits/base-0 (TW601)"]
    with pytest.raises(ValueError, match="held-out"):
        better(*outcomes("held_out"))
