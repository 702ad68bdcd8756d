"""Layers that are replaced, added and thawed midway, and optimisers that take over."""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainwatch

EPOCHS, BATCH = 6, 60
QUIET = {"quiet": True, "strict": True, "flush_every": 10, "probes": "off", "overhead": 0.9}


@cache
def digits():
    x, y = load_digits(return_X_y=True)
    return torch.as_tensor(x / 16, dtype=torch.float32), torch.as_tensor(y)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(F.relu(self.body(x)))


def train(event, *, watched, first=None):
    """Train on digits, with an event before the third epoch that may put another optimiser in place.

    Args:
        event: Takes model and optimiser, may return another optimiser.
        watched: Train under a watch.
        first: Takes the model before its optimiser is made.

    Returns:
        Weights and random numbers at the end; the watch; the norms of the head's gradients by hand.
    """
    torch.manual_seed(0)
    x, y = digits()
    model, norms = Net(), []
    if first is not None:
        first(model)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    watch = trainwatch.watch(model, optimizer, settings=QUIET) if watched else None
    for epoch in range(EPOCHS):
        if epoch == 2:
            optimizer = event(model, optimizer) or optimizer
        model.train()
        for rows in torch.randperm(1200).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            norms.append(float(model.head.weight.grad.norm()))
            optimizer.step()
        model.eval()
        with torch.no_grad():
            F.cross_entropy(model(x[1200:]), y[1200:])
    if watch is not None:
        watch.finish()
    return [*(t.clone() for t in model.state_dict().values()), torch.get_rng_state()], watch, norms


def freeze(model):
    model.body.requires_grad_(False)


def learn_and_freeze(model):
    """A body that carries training: what a fine-tuning begins with."""
    x, y = digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for rows in torch.arange(1200).split(BATCH):
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    freeze(model)


def replace(model, optimizer):
    model.head = nn.Linear(32, 10)
    optimizer.add_param_group({"params": model.head.parameters()})


def replace_and_forget(model, optimizer):
    model.head = nn.Linear(32, 10)


def add(model, optimizer):
    model.body.extend([nn.ReLU(), nn.Linear(32, 32)])
    optimizer.add_param_group({"params": model.body[-1].parameters()})


def thaw(model, optimizer):
    model.body.requires_grad_(True)
    optimizer.add_param_group({"params": model.body.parameters(), "lr": 1e-3})


def thaw_under_another_optimizer(model, optimizer):
    model.body.requires_grad_(True)
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


CASES = {
    "replaced": (replace, None, ["head.weight", "head.bias"]),
    "added": (add, None, ["body.6.weight", "body.6.bias"]),
    "thawed": (thaw, learn_and_freeze, [f"body.{n}" for n in ("0.weight", "0.bias", "1.weight")]),
    "thawed under another optimiser": (thaw_under_another_optimizer, freeze, ["body.0.weight"]),
}


@pytest.mark.parametrize(("event", "first", "joined"), CASES.values(), ids=CASES)
def test_what_joins_an_optimiser_is_named_and_nothing_is_found_wrong(event, first, joined):
    state, watch, _ = train(event, watched=True, first=first)
    plain, *_ = train(event, watched=False, first=first)
    assert all(map(torch.equal, state, plain))
    named = [p["name"] for p in watch.record.facts["joined"]["default"]]
    assert named[: len(joined)] == joined
    (told,) = [line for line in watch.report.overhead["skipped"] if "joined the optimiser" in line]
    assert all(name in told for name in joined)
    found = {d.code for d in watch.report.diagnoses if d.code[:3] in ("TW3", "TW7", "TW8")}
    assert not found


def test_steps_of_an_optimiser_that_takes_over_are_recorded():
    _, watch, norms = train(thaw_under_another_optimizer, watched=True, first=freeze)
    before = 2 * 1200 // BATCH
    steps, rows = watch.record.series("grad_norm", "default").history()
    assert len(steps) == EPOCHS * 1200 // BATCH - 1  # the first of its steps might have been one within another's
    expected = norms[:before] + norms[before + 1 :]
    np.testing.assert_allclose(rows[:, 0], expected, rtol=1e-4)
    facts = watch.record.facts["optimizers"]["default"]
    assert facts["type"] == "SGD"
    assert len(facts["parameters"]) == rows.shape[1]
    lr = watch.record.series("lr", "default/0")
    assert lr.values.tolist() == pytest.approx([3e-3, 0.05])
    assert lr.steps.tolist() == [0, before]


def test_a_layer_that_was_replaced_behind_the_optimisers_back_is_found():
    _, watch, _ = train(replace_and_forget, watched=True)
    (found,) = [d for d in watch.report.findings() if d.code == "TW705"]
    assert found.where == ("head",)


def test_an_optimiser_that_steps_within_the_watched_one_takes_nothing_over():
    class Outer(torch.optim.Optimizer):
        """Takes each step twice by another optimiser, as those that look ahead do."""

        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1})
            self.inner = torch.optim.SGD(self.param_groups, lr=0.1)

        def step(self, closure=None):
            self.inner.step()

    torch.manual_seed(0)
    x, y = digits()
    model, other, losses = nn.Linear(64, 10), nn.Linear(64, 10), []
    optimizer, unrelated = Outer(model.parameters()), torch.optim.SGD(other.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, settings=QUIET)
    for rows in torch.arange(1200).split(BATCH):
        for one, trains in ((other, unrelated), (other, unrelated), (model, optimizer)):
            trains.zero_grad()
            loss = F.cross_entropy(one(x[rows]), y[rows])
            loss.backward()
            trains.step()
        losses.append(float(loss.detach()))  # of the watched net
    watch.finish()
    assert watch.record.facts["optimizers"]["default"]["type"] == "Outer"
    assert watch.record.steps == 20
    assert watch.record.series("train_loss", "cross_entropy").values.tolist() == pytest.approx(losses, rel=1e-5)


def test_a_net_that_trains_between_backward_and_step_is_left_apart():
    torch.manual_seed(0)
    x, y = digits()
    model, other, losses = nn.Linear(64, 10), nn.Linear(64, 10), []
    optimizer, unrelated = torch.optim.SGD(model.parameters(), 0.1), torch.optim.SGD(other.parameters(), 0.1)
    watch = trainwatch.watch(model, optimizer, settings=QUIET)
    for rows in torch.arange(1200).split(BATCH):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[rows]), y[rows])
        loss.backward(retain_graph=True)
        loss.backward()  # of the same forward pass: this one is ours, too
        unrelated.zero_grad()
        (3 * F.cross_entropy(other(x[rows]), y[rows])).backward()
        unrelated.step()
        optimizer.step()
        losses.append(float(loss.detach()))
    watch.finish()
    assert watch.record.keys("train_loss") == ["cross_entropy"]
    assert watch.record.series("train_loss", "cross_entropy").values.tolist() == pytest.approx(losses, rel=1e-5)


def test_calls_within_a_transform_of_torch_func_are_left_apart():
    torch.manual_seed(0)
    x, y = digits()
    model, losses = nn.Linear(64, 10), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = trainwatch.watch(model, optimizer, settings=QUIET)

    def loss_of(weights, sample, label):
        return F.cross_entropy(torch.func.functional_call(model, weights, (sample[None],)), label[None])

    for rows in torch.arange(1200).split(BATCH):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[rows]), y[rows])
        weights = {name: p.detach() for name, p in model.named_parameters()}
        each = torch.func.vmap(torch.func.grad(loss_of), in_dims=(None, 0, 0))(weights, x[rows], y[rows])
        loss.backward()
        assert torch.allclose(each["weight"].mean(0), model.weight.grad, atol=1e-6)
        optimizer.step()
        losses.append(float(loss.detach()))
    report = watch.finish()
    assert watch.record.series("train_loss", "cross_entropy").values.tolist() == pytest.approx(losses, rel=1e-5)
    assert not watch.record.keys("val_loss")
    assert "TW000" not in [d.code for d in report.diagnoses]


def test_losses_of_an_optimiser_that_never_steps_do_not_gather(monkeypatch):
    monkeypatch.setattr("trainwatch.capture.losses.MOST", 8)
    torch.manual_seed(0)
    x, y = digits()
    model = nn.Linear(64, 10)
    watch = trainwatch.watch(model, torch.optim.SGD(model.parameters(), lr=0.1), settings=QUIET)
    for rows in torch.arange(1200).split(BATCH):
        (2 * F.cross_entropy(model(x[rows]), y[rows])).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
                p.grad = None
    losses = watch._monitor.capture.losses
    assert len(losses.pending) == len(losses._roots) == 8
    assert watch.finish().verdict == "not-judged"


@pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::FutureWarning:lightning")
def test_lightning_thaws_a_backbone(tmp_path):
    lightning = pytest.importorskip("lightning")
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            net = Net()
            self.backbone, self.head = net.body, net.head

        def training_step(self, batch, index):
            return F.cross_entropy(self.head(F.relu(self.backbone(batch[0]))), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=3e-3)

    def fit(*watching):
        x, y = digits()
        torch.manual_seed(0)
        module = Module()
        finetuning = callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=2, verbose=False)
        trainer = lightning.Trainer(
            max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, callbacks=[finetuning, *watching],
        )  # fmt: skip
        trainer.fit(module, DataLoader(TensorDataset(x[:600], y[:600]), batch_size=BATCH, shuffle=True))
        return [t.clone() for t in module.state_dict().values()]

    watch = trainwatch.TrainWatch(settings=QUIET)
    assert all(map(torch.equal, fit(watch), fit()))
    assert "backbone.0.weight" in [p["name"] for p in watch.record.facts["joined"]["default"]]
    assert not {"TW705", "TW702", "TW802"} & {d.code for d in watch.report.diagnoses}
