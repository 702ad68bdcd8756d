"""`trainwatch.escape`: leaves a saddle, touches nothing else, and says why where it does not."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

import trainwatch

sys.path.insert(0, str(__import__("pathlib").Path(__file__).parent / "rules"))
from saddles import FLAT, SADDLES, Ridge, linear, mlp, ridge_data, run, scaled, sgd, train

from trained import split

SEEDS = 5
SETTINGS = {"quiet": True, "strict": True, "probes": "off"}


def at_a_saddle(seed=0, lr=0.01, optimizer=None, epochs=8, **more):
    """A deep linear net that is still next to zero, its optimiser, criterion and data, under a live watch."""
    torch.manual_seed(seed)
    model, data, criterion = scaled(linear(10, 8, 8, 1, end=FLAT), 3e-2), split("diabetes", seed), nn.MSELoss()
    optim = (optimizer or sgd(lr))(model.parameters())
    watch = trainwatch.watch(model, optim, settings=SETTINGS, **more)
    train(model, optim, criterion, data, epochs)
    return watch, model, optim, criterion, data


def loss(model, criterion, data):
    with torch.no_grad():
        return float(criterion(model(data[0]), data[2]))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_off_the_saddle_it_trains(seed):
    """Left alone it stands where it stood; moved by what was measured, it learns in as many steps."""
    ends = []
    for moves in (False, True):
        watch, model, optim, criterion, data = at_a_saddle(seed)
        before = loss(model, criterion, data)
        if moves:
            done = trainwatch.escape(watch)
            assert done.moved
            assert done.reason == ""
            assert before - loss(model, criterion, data) == pytest.approx(done.drop, abs=5 * done.drop_error + 0.05)
        train(model, optim, criterion, data, 8)
        ends.append((before - loss(model, criterion, data)) / before)
        watch.finish()
    assert ends[0] < 0.1
    assert ends[1] > 0.35


@pytest.mark.parametrize("seed", range(SEEDS))
def test_diagnosed_escaped_and_diagnosed_no_more(seed):
    data, model, how = SADDLES["deep linear"]
    watch = run(data, model, seed, **how)
    assert "TW401" in [d.code for d in watch.report.findings()]
    watch, model, optim, criterion, data = at_a_saddle(seed)
    assert trainwatch.escape(watch).moved
    train(model, optim, criterion, data, 12)
    assert "TW401" not in [d.code for d in watch.finish().findings()]


def test_only_the_weights_move_and_by_the_length_that_is_told():
    watch, model, optim, *_ = at_a_saddle(optimizer=sgd(1e-3, momentum=0.9))
    weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    momenta = [optim.state[p]["momentum_buffer"].clone() for p in model.parameters()]
    gradients, drawn, modes = [p.grad.clone() for p in model.parameters()], torch.get_rng_state(), model.training
    done = trainwatch.escape(watch)
    moved = torch.cat([p.detach().reshape(-1) for p in model.parameters()]) - weights
    assert float(moved.norm()) == pytest.approx(done.length, rel=1e-4)
    assert all(
        torch.equal(optim.state[p]["momentum_buffer"], m) for p, m in zip(model.parameters(), momenta, strict=True)
    )
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert model.training == modes


def test_it_is_noted_and_no_motion_of_the_training():
    watch, *_ = at_a_saddle()
    done = trainwatch.escape(watch)
    (noted,) = watch.record.facts["escapes"]
    assert noted == {"step": 88, "length": done.length, "drop": done.drop, "drop_error": done.drop_error}
    assert watch.record.has("hessian")
    assert "weights_loaded" not in watch.record.facts
    watch.finish()
    row = watch.record.series("motion", "default").values[-1]
    assert (row[:, 2] * 8**0.5 < done.length).all()  # the path, over the norm at the start, of a training that stood
    assert not watch.record.faults


def path(escapes):
    watch, model, optim, criterion, data = at_a_saddle(lr=1e-4)
    if escapes:
        assert trainwatch.escape(watch).moved
    train(model, optim, criterion, data, 1)
    watch.finish()
    return watch.record.series("motion", "default").values[-1][:, 2].max()


def test_the_jump_is_no_part_of_the_path():
    assert path(True) < 10 * path(False) + 0.5 < 3


def test_tied_weights_move_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.decode = nn.Linear(13, 13, bias=False), nn.Linear(13, 13, bias=False)
            self.decode.weight = self.encode.weight

        def forward(self, x):
            return self.decode(self.encode(x))

    torch.manual_seed(0)
    model, (x, xv, _, _), criterion = scaled(Tied(), 1e-3), split("wine", 0), nn.MSELoss()
    optim = torch.optim.SGD(model.parameters(), lr=1e-3)
    with trainwatch.watch(model, optim, settings=SETTINGS) as watch:
        train(model, optim, criterion, (x, xv, x, xv), 4)
        before = model.encode.weight.detach().clone()
        done = trainwatch.escape(watch)
        assert done.moved
        assert float((model.encode.weight.detach() - before).norm()) == pytest.approx(done.length, rel=1e-4)
        assert model.decode.weight is model.encode.weight


def test_the_ridge_is_left_on_either_side():
    data = ridge_data(0)
    watch = run(data, Ridge, epochs=20, criterion=nn.L1Loss(), optimizer=sgd(0.05), end=False)
    assert trainwatch.escape(watch).drop == pytest.approx(1.0, abs=0.05)
    again = trainwatch.escape(watch)
    assert not again.moved
    assert again.reason.startswith(("no direction curves downwards", "the gradient shows a way"))
    assert len(watch.record.facts["escapes"]) == 1
    watch.finish()


def test_where_it_learns_it_stays():
    watch = run("digits", lambda: mlp(64, 10, 16, nn.ReLU), epochs=1, optimizer=sgd(0.05), end=False)
    done = trainwatch.escape(watch)
    assert (done.moved, done.length, done.drop) == (False, 0.0, 0.0)
    assert "way" in done.reason or "curves downwards" in done.reason
    assert "escapes" not in watch.record.facts
    watch.finish()


def test_a_measurement_that_is_impossible_is_told():
    model = nn.Linear(3, 1)
    with trainwatch.watch(model, torch.optim.SGD(model.parameters(), lr=0.1), settings=SETTINGS) as watch:
        assert trainwatch.escape(watch).reason.startswith("no batch was seen")
    models = {"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}
    optimizers = {k: torch.optim.SGD(m.parameters(), lr=0.1) for k, m in models.items()}
    with trainwatch.watch(models, optimizers, settings=SETTINGS) as watch:
        assert "several models" in trainwatch.escape(watch).reason


def test_other_processes_would_move_elsewhere(monkeypatch):
    watch, model, *_ = at_a_saddle(epochs=2)
    before = [p.clone() for p in model.parameters()]
    monkeypatch.setattr("trainwatch.escaping.several_processes", lambda: True)
    done = trainwatch.escape(watch)
    assert not done.moved
    assert "other processes" in done.reason
    assert all(map(torch.equal, model.parameters(), before))
    watch.finish()


def test_a_fault_is_contained(monkeypatch):
    watch, *_ = at_a_saddle(epochs=2)
    watch._monitor.containment._strict = False
    monkeypatch.setattr("trainwatch.probes.saddle.direction_of", lambda bench: 1 / 0)
    done = trainwatch.escape(watch)
    assert not done.moved
    assert "TW000" in done.reason
    assert "ZeroDivisionError" in watch.record.faults[0]["error"]
    watch.finish()


def test_its_time_is_not_taken_from_the_budget():
    watch, *_ = at_a_saddle(epochs=2)
    monitor = watch._monitor
    before = monitor._spent() - monitor._once
    trainwatch.escape(watch)
    assert monitor._spent() - monitor._once == pytest.approx(before)
    watch.finish()


def test_a_watch_that_has_ended_and_what_is_none_are_refused():
    watch, *_ = at_a_saddle(epochs=1)
    watch.finish()
    with pytest.raises(ValueError, match="the watch has ended: call escape before finish"):
        trainwatch.escape(watch)
    for wrong in (None, nn.Linear(1, 1), "watch"):
        with pytest.raises(TypeError, match=f"escape needs the watch of a training.*got {type(wrong).__name__}"):
            trainwatch.escape(wrong)
    pytest.importorskip("lightning")
    with pytest.raises(ValueError, match="has not begun"):
        trainwatch.escape(trainwatch.TrainWatch())


def test_in_lightning():
    L = pytest.importorskip("lightning")
    from torch.utils.data import DataLoader, TensorDataset

    x, _, y, _ = split("diabetes", 0)
    done = []

    class Deep(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = scaled(linear(10, 8, 8, 1, end=FLAT), 3e-2)

        def training_step(self, batch, index):
            return nn.functional.mse_loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

        def on_train_epoch_end(self):
            if self.current_epoch == 6:
                done.append(trainwatch.escape(watching))

    torch.manual_seed(0)
    watching = trainwatch.TrainWatch(settings=SETTINGS)
    trainer = L.Trainer(max_epochs=8, callbacks=[watching], logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")  # fmt: skip
    trainer.fit(Deep(), DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True))
    assert done[0].moved
    losses = watching.record.series("train_loss", "mse_loss").values
    assert np.mean(losses[-11:]) < 0.75 * np.mean(losses[55:77])
