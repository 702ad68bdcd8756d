"""The time that watching takes on a GPU: by events, which are made up where there is none."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch
from trainwatch.capture.device_time import DeviceTime


class Event:
    """An event of a queue whose clock moves by 4 ms between two of them."""

    now = 0.0
    passed = True

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        Event.now += 4.0
        self.at = Event.now

    def query(self):
        return Event.passed

    def elapsed_time(self, end):
        assert Event.passed, "the host would wait"
        return end.at - self.at


@pytest.fixture
def events(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(Event, "passed", True)


def test_work_is_timed_by_the_queue_it_is_put_on(events):
    time = DeviceTime(torch.device("cuda"))
    assert time.seconds() == 0.0
    with time.around():
        pass
    assert time.seconds() == pytest.approx(0.004)


def test_what_is_not_over_is_not_waited_for(events, monkeypatch):
    time = DeviceTime(torch.device("cuda"))
    with time.around():
        pass
    monkeypatch.setattr(Event, "passed", False)
    assert time.seconds() == 0.0


def test_on_the_cpu_the_hosts_clock_will_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", None)
    time = DeviceTime(torch.device("cpu"))
    with time.around():
        pass
    assert time.seconds() == 0.0


def overhead(device, steps=60):
    torch.manual_seed(0)
    model = nn.Linear(4, 3).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(8, 4, device=device), torch.zeros(8, dtype=torch.long, device=device)
    with trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "flush_every": 10}) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return watch.report.overhead["seconds"]


def test_the_time_of_one_row_counts_for_all_in_what_the_report_says(events, monkeypatch):
    monkeypatch.setattr(DeviceTime, "__init__", lambda self, device: setattr(self, "_measures", True))
    monkeypatch.setattr(DeviceTime, "_events", None, raising=False)
    assert overhead("cpu")["gradients, on the device"] == pytest.approx(60 * 0.004)


def test_the_report_of_a_run_on_the_cpu_names_no_device():
    assert "gradients, on the device" not in overhead("cpu")


@pytest.mark.gpu
def test_a_run_on_a_gpu_counts_the_gpus_time():
    assert 0 < overhead("cuda")["gradients, on the device"] < 1
