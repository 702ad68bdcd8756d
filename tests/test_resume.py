"""A run that goes on from a checkpoint is recorded as one that was never interrupted."""

import io

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

import trainwatch
from trainwatch.record import read_record

STEPS, BATCH = 60, 16
generator = torch.Generator().manual_seed(0)
X = torch.randn(512, 8, generator=generator)
Y = (X[:, 0] + 0.3 * torch.randn(512, generator=generator) > 0).long()


def made(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def watching(model, optimizer, log_dir=None):
    settings = {"quiet": True, "strict": True, "probes": "off", "flush_every": 10, "overhead": 0.9}
    return trainwatch.watch(model, optimizer, log_dir=log_dir, settings=settings)


def train(model, optimizer, first, last):
    for step in range(first, last):
        rows = torch.arange(step * BATCH, (step + 1) * BATCH) % 384
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[rows]), Y[rows]).backward()
        optimizer.step()
        if step % 10 == 9:
            model.eval()
            with torch.no_grad():
                for some in torch.arange(384, 512).split(64):
                    nn.functional.cross_entropy(model(X[some]), Y[some])
            model.train()


def interrupted(at, tmp_path):
    """Train, save everything, and go on in objects that know nothing but the file."""
    model, optimizer = made()
    watch = watching(model, optimizer)
    train(model, optimizer, 0, at)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "watch": watch.state_dict()}, file)
    watch.finish()
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    model, optimizer = made(seed=1)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    watch = watching(model, optimizer, tmp_path)
    watch.load_state_dict(saved["watch"])
    train(model, optimizer, at, STEPS)
    return watch, watch.finish()


@pytest.mark.parametrize("at", [30, 37])
def test_losses_norms_and_passes_go_on_where_they_were(at, tmp_path):
    model, optimizer = made()
    whole = watching(model, optimizer)
    train(model, optimizer, 0, STEPS)
    expected = whole.finish()
    watch, report = interrupted(at, tmp_path)
    for quantity, key in (
        ("train_loss", "cross_entropy"),
        ("grad_norm", "default"),
        ("val_loss", "val"),
        ("val_sample_loss", "val"),
    ):
        for one, other in zip(
            watch.record.series(quantity, key).history(), whole.record.series(quantity, key).history(), strict=True
        ):
            np.testing.assert_array_equal(one, other, err_msg=f"{quantity} {key}")
    assert set(watch.record.series("lr", "default/0").values.tolist()) == {np.float32(0.1)}
    assert report.facts["run"]["steps"] == STEPS
    assert report.facts["run"]["samples"] == expected.facts["run"]["samples"]
    assert [d.code for d in report.diagnoses] == [d.code for d in expected.diagnoses]
    stored = read_record(tmp_path)
    assert len(stored.items()) == len(watch.record.items())
    for quantity, key, series in watch.record.items():
        np.testing.assert_array_equal(stored.series(quantity, key).history()[1], series.history()[1])
    assert "damage" not in stored.facts


def test_motion_does_not_take_the_loading_for_a_step(tmp_path):
    model, optimizer = made()
    whole = watching(model, optimizer)
    train(model, optimizer, 0, STEPS)
    whole.finish()
    watch, _ = interrupted(30, tmp_path)
    steps, rows = watch.record.series("motion", "default").history()
    assert steps[-1] == STEPS
    assert (np.diff(steps) > 0).all()
    there = whole.record.series("motion", "default").history()[1]
    assert np.nanmax(rows[..., 0]) < 1.5 * np.nanmax(there[..., 0])  # updates over weights


def test_what_cannot_be_gone_on_from_is_named():
    model, optimizer = made()
    watch = watching(model, optimizer)
    with pytest.raises(ValueError, match="pass what `state_dict` returned"):
        watch.load_state_dict({"step": 3})
    state = watch.state_dict()
    with pytest.raises(ValueError, match="version 9"):
        watch.load_state_dict({**state, "version": 9})
    train(model, optimizer, 0, 2)
    with pytest.raises(ValueError, match="2 steps were taken already"):
        watch.load_state_dict(state)
    watch.finish()


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = made()[0]

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(epochs, tmp_path, *further, ckpt_path=None):
    callback = trainwatch.TrainWatch(settings={"quiet": True, "strict": True, "probes": "off"})
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path, callbacks=[callback, *further],
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=64)
    trainer.fit(Module(), loader, ckpt_path=ckpt_path)
    return callback


def test_lightning_goes_on_from_its_checkpoint(tmp_path):
    class Saving(L.Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.save_checkpoint(tmp_path / "at.ckpt")

    fit(2, tmp_path, Saving())
    again = fit(4, tmp_path, ckpt_path=tmp_path / "at.ckpt")
    whole = fit(4, tmp_path)
    assert again.record.steps == whole.record.steps == 32
    ours, theirs = (c.record.series("train_loss", "cross_entropy").history() for c in (again, whole))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6)
