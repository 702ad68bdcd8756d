"""Steps that go by unwatched, where they are so short that watching each would cost too much."""

import itertools

import lightning
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import trainwatch
from tests.trained import split
from trainwatch.capture import pace
from trainwatch.capture.pace import LONGEST, Pace
from trainwatch.capture.path import EVERY, START, STRETCH, Path
from trainwatch.monitor import Monitor

STRETCH_OF = 10
CYCLE = STRETCH_OF * (1 + LONGEST)


@pytest.fixture
def stingy(monkeypatch):
    """Settings under which as few steps are watched as possible, whatever the clock says."""
    monkeypatch.setattr(pace, "FIRST", 2 * STRETCH_OF)
    monkeypatch.setattr("trainwatch.monitor.FLOOR_PER_STEP", 0.0)
    return trainwatch.Settings(quiet=True, strict=True, probes="off", overhead=1e-9, flush_every=STRETCH_OF)


def digits(seed=0):
    x, xv, y, yv = split("digits", seed)
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), x, xv, y, yv


def train(settings, steps, *, zero=True, before_step=lambda step, model: None, model=None, lr=0.1):
    net, x, _xv, y, _yv = digits()
    model = model or net
    optimizer = torch.optim.SGD(model.parameters(), lr)
    watch = trainwatch.watch(model, optimizer, settings=settings) if settings else None
    batches = itertools.islice(itertools.cycle(torch.arange(len(x)).split(32)), steps)
    for step, rows in enumerate(batches):
        if zero:
            optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        before_step(step, model)
    return (watch.finish() if watch else None), watch, model


def test_first_steps_are_watched_and_then_whole_stretches(stingy):
    _, watch, _ = train(stingy, 400)
    for quantity, key in (("train_loss", "cross_entropy"), ("grad_norm", "default")):
        steps = watch.record.series(quantity, key).steps
        first = 2 * STRETCH_OF
        expected = [s for s in range(400) if s < first or (s - first) % CYCLE >= CYCLE - STRETCH_OF]
        assert list(steps) == expected
    assert watch.record.facts["run"]["steps"] == 400
    assert watch.record.facts["run"]["samples"] == pytest.approx(32 * 400, rel=0.02)  # the last batch is a short one
    assert f"{400 - len(expected)} of 400 steps were not watched" in watch.report.overhead["skipped"]


def test_with_time_enough_all_steps_are_watched(stingy, monkeypatch):
    monkeypatch.setattr("trainwatch.monitor.FLOOR_PER_STEP", 1e3)
    _, watch, _ = train(stingy, 100)
    assert len(watch.record.series("grad_norm", "default")) == 100
    assert not any("watched" in line for line in watch.report.overhead["skipped"])


@pytest.mark.parametrize("begun", [(pace.FIRST, 0.0), (100, pace.SECONDS)], ids=["steps", "seconds"])
def test_rests_last_until_the_budget_has_caught_up(begun):
    now = Pace(stretch=50)
    for _ in range(50):
        now.stepped()
    now.rest(pace.FIRST - 1, pace.SECONDS / 2, debt=1.0, allowance=1e-3)
    assert not now.resting  # the first steps of a run are all watched
    now.rest(pace.FIRST, 0.0, debt=0.0, allowance=1e-3)
    assert not now.resting
    now.rest(*begun, debt=0.1, allowance=1e-3)
    for _ in range(100):
        assert now.resting
        now.rest(*begun, debt=0.1, allowance=1e-3)  # a look in between makes it no longer
        now.stepped()
    assert not now.resting
    assert now.unwatched == 100
    now.rest(*begun, debt=0.1, allowance=1e-3)
    assert not now.resting  # not before as many were watched again


class Ticking:
    """A clock that moves by 7 us whenever it is read."""

    now = 0.0

    def __call__(self):
        self.now += 7e-6
        return self.now


def test_a_long_run_of_short_steps_keeps_the_floor(monkeypatch):
    monkeypatch.setattr(pace, "FIRST", 200)
    clock, (model, x, _, y, _) = Ticking(), digits()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    settings = trainwatch.Settings(quiet=True, strict=True, flush_every=20)
    monitor = Monitor({"default": model}, {"default": optimizer}, settings, clock=clock)
    cost = []
    for step in range(6000):
        optimizer.zero_grad()
        F.cross_entropy(model(x[:8]), y[:8]).backward()
        optimizer.step()
        clock.now += 1e-3
        if step in (199, 5999):
            cost.append(monitor._spent() / (step + 1))
    monitor.finish()
    assert cost[0] > 150e-6  # watched at every step it would take more than the floor
    assert cost[1] < 100e-6
    assert monitor.capture.pace.unwatched > 3000


def test_training_is_the_same_with_rests(stingy):
    _, _, watched = train(stingy, 200)
    _, _, alone = train(None, 200)
    for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_validation_is_seen_whole(stingy):
    _, _, xv, _, yv = digits()

    def validate(step, model):
        if step % 25 == 24:
            model.eval()
            with torch.no_grad():
                for rows in torch.arange(len(xv)).split(100):
                    F.cross_entropy(model(xv[rows]), yv[rows])
            model.train()

    _, watch, _ = train(stingy, 400, before_step=validate)
    assert list(watch.record.series("val_loss", "val").steps) == list(range(25, 401, 25))
    assert watch.record.facts["validation"]["val"]["samples"] == len(xv)


@pytest.mark.parametrize(("training", "missed"), [(False, 0), (True, 100)])
def test_validation_with_gradients_ends_a_rest(stingy, training, missed):
    """In training mode its first batch may as well be one that is trained on."""
    _, _, xv, _, yv = digits()

    def validate(step, model):
        if step == 60:  # well within a rest
            model.train(training)
            for rows in torch.arange(len(xv)).split(100):
                F.cross_entropy(model(xv[rows]), yv[rows])
            model.train()

    _, watch, _ = train(stingy, 120, before_step=validate)
    assert watch.record.facts["validation"]["val"]["samples"] == len(xv) - missed
    assert 61 in watch.record.series("train_loss", "cross_entropy").steps


def test_a_loader_that_starts_ends_a_rest(stingy):
    model, x, _, y, _ = digits()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 32)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = trainwatch.watch(model, optimizer, settings=stingy)
    for _ in range(4):
        for inputs, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    watch.finish()
    steps = watch.record.series("train_loss", "cross_entropy").steps
    assert set(np.arange(4) * len(loader)) <= set(steps)
    assert watch.record.facts["run"]["epochs"] == 4
    assert len(steps) < 4 * len(loader)


class Log(nn.Module):
    def forward(self, x):
        return x.log()


class WithLoss(nn.Module):
    """Computes its loss within its forward pass, as models of language do."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), Log(), nn.Linear(32, 10))

    def forward(self, x, y):
        logits = self.net(x)
        return logits, F.cross_entropy(logits, y)


def test_a_batch_that_makes_an_unwatched_loss_nan_is_run_again(stingy):
    model, x, _, y, _ = digits()
    model = nn.Sequential(nn.Linear(64, 32), nn.Softplus(), Log(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    watch = trainwatch.watch(model, optimizer, settings=stingy)
    for step in range(100):
        inputs = x[:32].clone()
        if step == 61:
            inputs[3] = -1e6  # whose softplus is 0
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), y[:32]).backward()
        optimizer.step()
    watch.finish()
    assert 61 not in watch.record.series("grad_norm", "default").steps
    found = watch.record.facts["nonfinite"]
    assert (found["step"], found["seen"]) == (61, "loss")
    assert (found["phase"], found["module"], found["samples"]) == ("forward", "2", [3]), found


def test_so_is_one_whose_loss_the_model_computes_itself(stingy):
    _, x, _, y, _ = digits()
    torch.manual_seed(0)
    model = WithLoss()
    model.net[1] = nn.Softplus()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    watch = trainwatch.watch(model, optimizer, settings=stingy)
    for step in range(100):
        inputs = x[:32].clone()
        if step == 61:
            inputs[3] = -1e6
        optimizer.zero_grad()
        model(inputs, y[:32])[1].backward()
        optimizer.step()
    watch.finish()
    found = watch.record.facts["nonfinite"]
    assert (found["step"], found["phase"], found["module"]) == (61, "forward", "net.2"), found


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.Softplus(), Log(), nn.Linear(32, 10))

    def training_step(self, batch, index):
        inputs, targets = batch
        if index == 35:
            inputs = inputs.clone()
            inputs[3] = -1e6
        return F.cross_entropy(self.net(inputs), targets)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def test_so_is_one_of_a_trainer(stingy, tmp_path):
    _, x, _, y, _ = digits()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 32)
    watch = trainwatch.TrainWatch(settings=stingy)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[watch],
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(), loader)
    found = watch._monitor.record.facts["nonfinite"]
    assert 35 not in watch._monitor.record.series("grad_norm", "default").steps
    assert (found["step"], found["phase"], found["module"]) == (35, "forward", "net.2"), found


@pytest.mark.parametrize("zero", [True, False])
def test_gradients_that_are_not_zeroed_are_noticed(stingy, zero):
    report, watch, _ = train(stingy, 600, zero=zero, lr=1e-4)
    kept = watch.record.facts["zeroing"]["default"]
    assert kept["cycles"] > 40
    assert kept["kept"] == (0 if zero else kept["cycles"])
    assert any(d.code == "TW704" for d in report.diagnoses) != zero


def test_an_overflow_that_a_scaler_skips_ends_a_rest(stingy):
    model, x, _, y, _ = digits()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=10**6)
    watch = trainwatch.watch(model, optimizer, settings=stingy)
    for step in range(100):
        optimizer.zero_grad()
        loss = F.cross_entropy(model[2](model[1](model[0](x[:32]))), y[:32])  # no call of the model tells
        scaler.scale(loss * (torch.inf if step == 60 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
    watch.finish()
    assert watch.record.facts["scaler"]["skipped_steps"] == 1
    steps = watch.record.series("grad_norm", "default").steps
    assert 60 in steps
    assert 50 not in steps


def test_the_path_of_unwatched_weights_goes_on_as_before():
    """Stretches of length 1, and one back after the rest: the sum counts all, seen or not; only neighbours turn."""
    path = Path(1, [0], [1])
    path.take(START, 0, np.ones(1))
    for updates, at in ((EVERY, 2), (2 * EVERY, 3), (20 * EVERY, 5), (21 * EVERY, 4)):
        path.take(STRETCH, updates, np.full(1, float(at)))
    _, row, _ = path.rows()
    assert list(row[0, 1:]) == [3.0, 21.0, 1.0]


def test_a_criterion_that_is_a_module_is_not_taken_in_unwatched_steps(stingy):
    """Neither one that calls a functional loss, nor one that computes its own; a term added to it or not."""

    class Own(nn.Module):
        def forward(self, outputs, targets):
            return (outputs.logsumexp(1) - outputs.gather(1, targets[:, None])[:, 0]).mean()

    for criterion, stream in ((nn.CrossEntropyLoss(), "cross_entropy"), (Own(), "Own")):
        model, (x, y) = nn.Linear(4, 3), (torch.randn(8, 4), torch.randint(0, 3, (8,)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        watch = trainwatch.watch(model, optimizer, loss_fn=criterion, settings=stingy)
        for _ in range(2 * CYCLE):
            optimizer.zero_grad()
            (criterion(model(x), y) + 1e-3 * model.weight.abs().sum()).backward()
            optimizer.step()
        watch.finish()
        assert 0 < len(watch.record.series("train_loss", stream)) < 2 * CYCLE
        assert set(watch.record.keys("train_loss")) == {stream, "root"}
