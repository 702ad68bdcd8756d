"""Training with a watch is bit for bit the training without one, and nothing of the watch is left behind."""

import copy
import io
import math
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainwatch

OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
}


class Gated(nn.Module):
    """A recurrent layer, attention, and a gate: what probes take apart."""

    def __init__(self):
        super().__init__()
        self.body, self.attention = nn.LSTM(2, 8, batch_first=True), nn.MultiheadAttention(8, 2, batch_first=True)
        self.gate, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.body(x.unflatten(1, (4, 2)))[0]
        x = self.attention(x, x, x, need_weights=False)[0].mean(1)
        return self.head(x * self.gate(x).sigmoid())


NETS = {
    "gated": Gated,
    "plain": lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)),
    "noisy": lambda: nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 3)
    ),
}


@pytest.fixture(autouse=True)
def short_experiments(monkeypatch):
    """Copies take the fewest steps that a probe is content with, in the rounds that are asked for alone."""
    monkeypatch.setattr("trainwatch.monitor.FLUSH_SECONDS", math.inf)
    monkeypatch.setattr("trainwatch.probes.governor.Governor.affords", lambda self, left: 0.0)


def seed():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def rng_states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def everything(model, optimizer):
    slots = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    tensors = [*model.state_dict().values(), *slots, *gradients]
    return [t.detach().clone() for t in tensors], [m.training for m in model.modules()], rng_states()


def data():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(96, 8, generator=generator)
    return inputs, torch.randint(0, 3, (96,), generator=generator)


def train(net, make_optimizer, start):
    seed()
    inputs, labels = data()
    model = NETS[net]()
    optimizer = OPTIMIZERS[make_optimizer](model.parameters())
    watch = start(model, optimizer)
    loader = DataLoader(TensorDataset(inputs[:64], labels[:64]), batch_size=8, shuffle=True)
    for _ in range(4):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x + 0.1 * torch.randn_like(x)), y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            F.cross_entropy(model(inputs[64:]), labels[64:])
            F.cross_entropy(model(inputs[:64]), labels[:64])
    if watch is not None:
        watch.finish()
    return everything(model, optimizer)


def assert_same(one, other):
    assert all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))
    assert one[1:] == other[1:]


@pytest.mark.parametrize(("net", "optimizer"), [("gated", "adamw"), ("noisy", "momentum")])
def test_plain_training_is_bit_identical(net, optimizer, tmp_path):
    rounds = 40 if net == "gated" else 20  # one at its end, since that is slow; or one amid the run as well
    settings = {"quiet": True, "flush_every": rounds, "strict": True, "probes": "all"}
    watched = train(net, optimizer, lambda m, o: trainwatch.watch(m, o, log_dir=tmp_path, settings=settings))
    assert_same(watched, train(net, optimizer, lambda m, o: None))


@pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::FutureWarning:lightning")
def test_lightning_training_is_bit_identical(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = NETS["noisy"]()

        def training_step(self, batch, index):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, index):
            self.log("loss", F.cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    def fit(callbacks):
        seed()
        inputs, labels = data()
        module = Module()
        trainer = lightning.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=0.5,
            accumulate_grad_batches=2,
            callbacks=callbacks,
            default_root_dir=tmp_path,
        )
        train_loader = DataLoader(TensorDataset(inputs[:64], labels[:64]), batch_size=8, shuffle=True)
        trainer.fit(module, train_loader, DataLoader(TensorDataset(inputs[64:], labels[64:]), batch_size=16))
        return everything(module, trainer.optimizers[0])

    settings = {"quiet": True, "flush_every": 7, "probes": "all"}
    callback = trainwatch.TrainWatch(log_dir=tmp_path, settings=settings, preflight=True)
    watched = fit([callback])
    assert callback.report.facts["run"]["steps"] == 12
    assert callback.preflight_report.verdict != "not-judged"
    assert_same(watched, fit([]))


def test_everything_is_taken_off_again():
    code = {name: getattr(F, name).__code__ for name in ("cross_entropy", "mse_loss", "binary_cross_entropy")}
    before = (torch.Tensor.backward, torch.autograd.backward, DataLoader.__iter__, nn.utils.clip_grad_norm_)
    names = set(vars(F))
    model, criterion = NETS["noisy"](), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, loss_fn=criterion, settings={"quiet": True})
    assert F.cross_entropy.__code__ is not code["cross_entropy"]
    watch.finish()
    assert all(getattr(F, name).__code__ is known for name, known in code.items())
    after = (torch.Tensor.backward, torch.autograd.backward, DataLoader.__iter__, nn.utils.clip_grad_norm_)
    assert after == before
    assert set(vars(F)) == names
    for module in (criterion, *model.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_watching_again_replaces_the_first_watch():
    model = NETS["plain"]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = trainwatch.watch(model, optimizer, settings={"quiet": True})
    second = trainwatch.watch(model, optimizer, settings={"quiet": True})
    assert first.report is not None
    assert second.report is None
    assert len(model._forward_hooks) == 1
    second.finish()


@pytest.fixture
def watched():
    model = NETS["plain"]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True})
    yield model, optimizer, watch
    watch.finish()


def test_a_copy_of_the_model_trains_outside_the_watch(watched):
    model, _, watch = watched
    twin = copy.deepcopy(model)
    with torch.no_grad():
        F.cross_entropy(twin(data()[0]), data()[1])
    assert not watch.record.has("val_loss")
    assert twin(data()[0]).shape == (96, 3)


def test_a_pickled_model_needs_no_trainwatch(watched, tmp_path):
    model, optimizer, _ = watched
    model.loss = F.cross_entropy  # by reference: the function must still be torch's own
    for file, save in (("pickle", lambda f: pickle.dump(model, f)), ("torch", lambda f: torch.save(model, f))):
        with (tmp_path / file).open("wb") as stream:
            save(stream)
    copy.deepcopy(optimizer)
    code = f"""
import pickle, sys, torch
sys.modules["trainwatch"] = None
one = pickle.load(open({str(tmp_path / "pickle")!r}, "rb"))
two = torch.load({str(tmp_path / "torch")!r}, weights_only=False)
assert torch.equal(one(torch.ones(1, 8)), two(torch.ones(1, 8)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_checkpoints_hold_nothing_of_the_watch(watched):
    model, optimizer, _ = watched
    stream = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, stream)
    stream.seek(0)
    torch.load(stream, weights_only=True)
