"""The callback on real `Trainer.fit` runs, held against what the module itself kept."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainwatch
from trainwatch.checks.preflight import Preflight

lightning = pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")

QUIET = {"quiet": True, "strict": True, "flush_every": 4}
generator = torch.Generator().manual_seed(1)
X, Y = torch.randn(64, 8, generator=generator), torch.randint(0, 3, (64,), generator=generator)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
        self.seen, self.norms = [], []

    def training_step(self, batch, index):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.seen.append(loss.item())
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.norms.append([p.grad.float().norm().item() for p in self.parameters() if p.grad is not None])

    def validation_step(self, batch, index, dataloader_idx=0):
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(part=slice(0, 48), shuffle=False):
    return DataLoader(TensorDataset(X[part], Y[part]), batch_size=8, shuffle=shuffle)


def fit(module=None, callback=None, val=None, package=lightning, **options):
    module, callback = module or Module(), callback or trainwatch.TrainWatch(settings=QUIET)
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, **options}
    callbacks = [callback, *options.pop("callbacks", [])]
    trainer = package.Trainer(
        accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks, **options
    )
    trainer.fit(module, loader(), [loader(slice(48, 64))] if val is None else val)
    return module, callback, trainer


def series(callback, quantity, key):
    return callback.record.series(quantity, key).values


def test_losses_norms_and_passes():
    module, callback, trainer = fit()
    assert series(callback, "train_loss", "cross_entropy").tolist() == pytest.approx(module.seen, rel=1e-5)
    np.testing.assert_allclose(series(callback, "grad_norm", "default"), module.norms, rtol=1e-4)
    assert callback.record.series("val_loss", "val").steps.tolist() == [6, 12]  # the sanity check is none
    logged = trainer.callback_metrics["val_loss"].item()
    assert series(callback, "val_loss", "val")[-1] == pytest.approx(logged, rel=1e-5)
    assert callback.report.facts["run"]["epochs"] == 2
    assert callback.record.facts["loaders"]["train"]["samples"] == 48


def test_accumulation_and_clipping():
    module, callback, _ = fit(accumulate_grad_batches=3, gradient_clip_val=0.01)
    np.testing.assert_allclose(series(callback, "grad_norm", "default"), module.norms, rtol=1e-4)
    assert (series(callback, "grad_norm", "default").max(1) > 0.01).all()  # before clipping
    means = np.reshape(module.seen, (-1, 3)).mean(1)
    assert series(callback, "train_loss", "cross_entropy").tolist() == pytest.approx(means.tolist(), rel=1e-5)
    assert series(callback, "loss_factor", "cross_entropy")[0] == pytest.approx(1 / 3)
    facts = callback.record.facts["regularisation"]
    assert facts["accumulation"] == 3
    assert facts["clipping"] == {"max_norm": 0.01}


def test_bfloat16_autocast():
    module, callback, _ = fit(precision="bf16-mixed")
    np.testing.assert_allclose(series(callback, "grad_norm", "default"), module.norms, rtol=1e-3)


def test_two_validation_loaders_and_early_stopping():
    stopping = lightning.pytorch.callbacks.EarlyStopping("val_loss/dataloader_idx_0")
    val = [loader(slice(48, 64)), loader(slice(0, 48))]
    _, callback, _ = fit(val=val, callbacks=[stopping])
    assert callback.record.keys("val_loss") == ["val", "val/1"]
    assert callback.record.facts["validation"]["val/1"]["kind"] == "train-eval"
    assert callback.record.facts["regularisation"]["early_stopping"] is True


def test_manual_optimisation_with_two_optimizers():
    class Gan(Module):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.other = nn.Linear(8, 1)

        def training_step(self, batch, index):
            first, second = self.optimizers()
            for optimizer, out in ((first, self.net(batch[0])), (second, self.other(batch[0]).repeat(1, 3))):
                optimizer.zero_grad()
                self.manual_backward(F.cross_entropy(out, batch[1]))
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD(m.parameters(), lr=0.1) for m in (self.net, self.other)]

    module, callback, _ = fit(Gan())
    assert callback.record.keys("grad_norm") == ["0", "1"]
    assert len(callback.record.series("train_loss", "0/cross_entropy")) == 12
    assert len(callback.record.series("train_loss", "1/cross_entropy")) == 12
    first = [norms[:4] for norms in module.norms[::2]]
    np.testing.assert_allclose(series(callback, "grad_norm", "0"), first, rtol=1e-4)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt])
def test_an_exception_in_training_still_gives_the_report(error, tmp_path):
    class Failing(Module):
        def training_step(self, batch, index):
            if self.global_step == 9:
                raise error
            return super().training_step(batch, index)

    callback = trainwatch.TrainWatch(settings=QUIET, log_dir=tmp_path)
    with pytest.raises((error, SystemExit)):
        fit(Failing(), callback)
    assert callback.report.facts["run"]["steps"] == 9
    assert error.__name__ in callback.report.facts["run"]["ended_by"]
    assert trainwatch.diagnose(tmp_path).to_json() == callback.report.to_json()


def test_stop_on_ends_the_fit_without_an_exception():
    class Broken(Module):
        def training_step(self, batch, index):
            return super().training_step(batch, index) * (float("nan") if self.global_step > 10 else 1.0)

    callback = trainwatch.TrainWatch(settings={**QUIET, "overhead": 0.99}, stop_on=["non-finite"])  # looks on time
    _, _, trainer = fit(Broken(), callback, max_epochs=100)
    assert "TW303" in {d.code for d in callback.report.findings()}
    assert trainer.global_step < 600


def test_checkpoints_and_copies_of_the_callback(tmp_path):
    _, callback, trainer = fit(enable_checkpointing=True, default_root_dir=tmp_path)
    assert pickle.loads(pickle.dumps(callback)).report is not None
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert "state_dict" in torch.load(tmp_path / "last.ckpt", weights_only=True)


def test_a_second_fit_is_a_run_of_its_own():
    module, callback, _ = fit()
    first = callback.report
    fit(module, callback)
    assert callback.report is not first
    assert callback.report.facts["run"]["steps"] == 12


def test_under_its_other_package_name():
    package = pytest.importorskip("pytorch_lightning")

    class Other(package.LightningModule):
        validation_step, configure_optimizers = Module.validation_step, Module.configure_optimizers

        def __init__(self):
            super().__init__()
            self.net, self.seen = nn.Linear(8, 3), []

        def training_step(self, batch, index):
            return F.cross_entropy(self.net(batch[0]), batch[1])

    _, callback, _ = fit(Other(), package=package)
    assert len(callback.record.series("train_loss", "cross_entropy")) == 12


def test_curves_and_findings_go_through_the_trainers_own_writer(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = lightning.pytorch.loggers.TensorBoardLogger(tmp_path)
    fit(logger=logger)
    files = list((tmp_path / "lightning_logs" / "version_0").glob("events.*"))
    assert len(files) == 1
    events = event_accumulator.EventAccumulator(str(files[0])).Reload()
    assert "trainwatch/train_loss/cross_entropy" in events.Tags()["scalars"] + events.Tags()["tensors"]
    assert (tmp_path / "lightning_logs" / "version_0" / "trainwatch" / "report.html").is_file()


@pytest.fixture
def time_enough(monkeypatch):
    """However slow the machine, all of a preflight is measured."""
    monkeypatch.setitem(Preflight.__init__.__kwdefaults__, "seconds", 1e9)


@pytest.mark.usefixtures("time_enough")
def test_a_preflight_is_made_of_the_first_batch_and_the_watch_hears_nothing_of_it(capsys):
    callback = trainwatch.TrainWatch(settings={**QUIET, "quiet": False}, preflight=True)
    plain, _, _ = fit()
    module, _, _ = fit(callback=callback)
    assert "195 parameters before training" in " ".join(capsys.readouterr().out.split())
    report = callback.preflight_report
    assert report.verdict == "healthy"
    assert [d.code for d in report.diagnoses] == []  # there is validation
    assert "TW707" in report.not_checked  # this module has no forward(), so its outputs cannot be compared
    assert callback.report.facts["run"]["steps"] == 12
    steps = callback.record.series("train_loss", "cross_entropy").steps
    assert steps.tolist() == list(range(12))
    assert "TW706" not in callback.report.not_checked  # the first graph that was seen is that of the training
    assert module.seen == plain.seen
    assert callback.report.overhead["seconds"]["preflight"] > 0


@pytest.mark.usefixtures("time_enough")
@pytest.mark.parametrize(("fault", "code"), [("softmax", "TW703"), ("label", "TW708"), ("mixing", "TW707")])
def test_a_preflight_finds_faults_of_the_module(fault, code):
    class Faulty(Module):
        def forward(self, x):
            outputs = self.net(x)
            return outputs.softmax(1) if fault == "softmax" else outputs - outputs.mean(0) * (fault == "mixing")

        def training_step(self, batch, index):
            return F.cross_entropy(self(batch[0]), batch[1] + (fault == "label"))

    callback = trainwatch.TrainWatch(settings=QUIET, preflight=True)
    if fault == "label":
        with pytest.raises(IndexError):  # the trainer's own, afterwards
            fit(Faulty(), callback)
    else:
        fit(Faulty(), callback, max_steps=1)
    assert code in [d.code for d in callback.preflight_report.findings()]


def test_a_preflight_leaves_alone_what_optimises_by_hand():
    class Manual(Module):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, index):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, index))
            optimizer.step()

        def on_before_optimizer_step(self, optimizer):
            pass

    callback = trainwatch.TrainWatch(settings=QUIET, preflight=True)
    fit(Manual(), callback, max_steps=2)
    assert callback.preflight_report.verdict == "not-judged"
    assert "optimises manually" in callback.preflight_report.not_checked["TW703"]


def held(callback, kind):
    return callback._monitor.capture.held.batches(kind)


class Kept(lightning.Callback):
    """Notes what is held when training ends, before it is let go."""

    def __init__(self, callback):
        self.callback, self.found = callback, []

    def on_train_end(self, trainer, pl_module):
        self.found = held(self.callback, "val")
        self.losses = [batch.loss(pl_module).item() for batch in self.found]


def kept(module, **options):
    callback = trainwatch.TrainWatch(settings=QUIET | {"probes": "off"})
    kept = Kept(callback)
    trainer = lightning.Trainer(
        accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, callbacks=[kept, callback],
        logger=False, enable_checkpointing=False, max_epochs=2, **options,
    )  # fmt: skip
    trainer.fit(module, loader(), [loader(slice(48, 64))])
    return kept


def test_validation_batches_are_held_where_the_call_of_the_model_is_out_of_sight():
    module = Module()
    module.net[2].p = 0.0
    found = kept(module)
    assert [type(batch).__name__ for batch in found.found] == ["HeldStep", "HeldStep"]
    assert {batch.step for batch in found.found} == {12}
    expected = [F.cross_entropy(module.net(X[part]), Y[part]).item() for part in (slice(48, 56), slice(56, 64))]
    assert found.losses == pytest.approx(expected, rel=1e-5)


class Called(Module):
    def forward(self, x):
        return self.net(x)

    def validation_step(self, batch, index):
        F.cross_entropy(self(batch[0]), batch[1])


def test_where_the_call_is_seen_its_loss_is_held_and_no_step():
    assert [type(batch).__name__ for batch in kept(Called()).found] == ["HeldBatch", "HeldBatch"]


class Otherwise(Module):
    """Its training batches are made otherwise than those of validation."""

    def training_step(self, batch, index):
        x, y = batch["pair"] if isinstance(batch, dict) else (_ for _ in ()).throw(TypeError("no mapping"))
        return super().training_step((x, y), index)


def test_a_training_step_that_does_not_take_validation_batches_costs_the_experiment_alone():
    callback = trainwatch.TrainWatch(settings=QUIET | {"probes": {"train_eval": 1000}})
    pairs = [{"pair": (X[rows], Y[rows])} for rows in torch.arange(48).split(8)]
    trainer = lightning.Trainer(
        accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, callbacks=[callback],
        logger=False, enable_checkpointing=False, max_epochs=2,
    )  # fmt: skip
    trainer.fit(Otherwise(), DataLoader(pairs, batch_size=None), [loader(slice(48, 64))])
    assert callback.record.faults == []
    assert "TW000" not in {d.code for d in callback.report.diagnoses}
    assert not callback.record.has("evaluated_loss")
