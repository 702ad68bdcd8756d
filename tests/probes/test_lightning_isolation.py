"""A copy of a LightningModule computes its training_step; whatever the module does there stays in the copy."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainwatch
from trainwatch.probes.activations import measure
from trainwatch.probes.bench import Bench
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.record import RunRecord

L = pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::FutureWarning:lightning")


class Plain(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))

    def training_step(self, batch, index):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Counting(Plain):
    steps = 0

    def training_step(self, batch, index):
        self.steps += 1
        return super().training_step(batch, index)


class Queueing(Plain):
    def __init__(self):
        super().__init__()
        self.queue = []
        self.register_buffer("keys", torch.zeros(4, 4))

    def training_step(self, batch, index):
        self.queue.append(batch[0].mean().item())
        self.keys = torch.cat([self.keys[1:], batch[0][:1]])
        return super().training_step(batch, index)


class Averaging(Plain):
    def __init__(self):
        super().__init__()
        self.average = nn.Linear(4, 8).requires_grad_(False)

    def training_step(self, batch, index):
        with torch.no_grad():
            self.average.weight.lerp_(self.net[0].weight, 0.1)
        return super().training_step(batch, index)


class Logging(Plain):
    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        self.log("loss", loss, on_epoch=True)
        self.log_dict({"also": loss})
        if self.logger is not None:
            self.logger.experiment.add_scalar("x", 1.0, self.global_step)
        return {"loss": loss}


class Reading(Plain):
    def training_step(self, batch, index):
        return super().training_step(batch, index) * (1 + self.trainer.current_epoch) + 0 * self.trainer.global_step


class Manual(Plain):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, index):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, index))
        optimizer.step()


class Meddling(Plain):
    def training_step(self, batch, index):
        self.trainer.should_stop = False
        return super().training_step(batch, index)


class Popping(Plain):
    def training_step(self, batch, index):
        x, y = batch.pop(0), batch.pop()
        return F.cross_entropy(self.net(x), y)


def fit(module, callbacks=(), logger=False, **options):
    torch.manual_seed(0)
    module_inputs, labels = torch.randn(64, 4), torch.randint(0, 3, (64,))
    trainer = L.Trainer(
        max_epochs=3, accelerator="cpu", logger=logger, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(module_inputs, labels), 8, shuffle=True))
    return trainer


def state(module):
    tensors = {k: v.clone() for k, v in module.state_dict().items()}
    return tensors, getattr(module, "steps", 0), list(getattr(module, "queue", []))


MODULES = [Plain, Counting, Queueing, Averaging, Logging, Reading, Popping]
ALIKE = [Plain, Counting, Averaging]  # the others are made of the same parts


PROBES = dict.fromkeys(("activations", "train_eval", "gates", "backward_gain", "sharpness", "without_regulariser"), 10)


@pytest.mark.parametrize(
    "kind", [pytest.param(m, marks=[pytest.mark.long] * (m in ALIKE)) for m in MODULES], ids=lambda k: k.__name__
)
def test_probes_measure_and_training_is_bit_identical(kind, tmp_path):
    def run(callbacks):
        torch.manual_seed(1)
        module = kind()
        trainer = fit(module, callbacks, logger=None if kind is not Logging else True, default_root_dir=tmp_path)
        return state(module), torch.get_rng_state(), dict(trainer.logged_metrics)

    settings = {"quiet": True, "strict": True, "probes": PROBES, "flush_every": 5}
    callback = trainwatch.TrainWatch(settings=settings, log_dir=tmp_path / "watched")
    (watched, random, logged), (plain, other, unlogged) = run([callback]), run([])
    assert all(torch.equal(watched[0][k], plain[0][k]) for k in plain[0])
    assert watched[1:] == plain[1:]
    assert torch.equal(random, other)
    assert logged == unlogged
    steps, rows = callback.record.series("activity", "net.2:relu").history()
    assert len(steps) > 2
    assert rows.shape[1] == 6


@pytest.mark.parametrize(
    ("kind", "reason"), [(Manual, "optimises manually"), (Meddling, r"training_step sets trainer\.should_stop")]
)
def test_what_cannot_be_isolated_is_left_alone_and_the_reason_is_told(kind, reason, tmp_path):
    settings = {"quiet": True, "probes": PROBES, "flush_every": 5}
    callback = trainwatch.TrainWatch(settings=settings, log_dir=tmp_path)
    fit(kind(), [callback])
    assert not callback.record.has("activity")
    assert reason.replace("\\", "") in callback.record.facts["switched_off"]["activity"]
    assert not callback.record.faults


class Validating(Plain):
    def forward(self, x):
        return self.net(x)

    def validation_step(self, batch, index):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))


def test_validation_batches_of_a_trainer_are_held_where_the_module_calls_itself():
    module, callback = Validating(), trainwatch.TrainWatch(settings={"quiet": True, "strict": True})
    held = []

    class Look(L.Callback):
        def on_train_epoch_end(self, trainer, watched):
            held.append(callback._monitor.capture.held.batches("val"))

    data = DataLoader(TensorDataset(torch.randn(64, 4), torch.randint(0, 3, (64,))), 8)
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback, Look()],
    )  # fmt: skip
    trainer.fit(module, data, data)
    assert [b.step for b in held[-1]] == [16] * 8
    module.eval()
    expected = F.cross_entropy(module.net(held[-1][0].args[0]), held[-1][0].target)
    torch.testing.assert_close(held[-1][0].loss(module), expected)


def test_whatever_is_not_plain_of_the_trainer_is_refused():
    class Looking(Plain):
        def training_step(self, batch, index):
            len(self.trainer.train_dataloader)
            return super().training_step(batch, index)

    module = Looking()
    module.trainer = fit(Plain())

    class Step:
        samples = 8

        def predict(self, model):
            return model.training_step((torch.randn(8, 4), torch.zeros(8, dtype=torch.long)), 0)

    bench = Bench(module, lambda kind: [Step()], "", RunRecord(), 0, 1 << 20)
    with pytest.raises(CannotIsolate, match=r"uses trainer\.train_dataloader"):
        measure(bench)
