"""The shapes that training loops come in. In each, what is recorded is held against what the loop itself kept."""

import contextlib
import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import cross_entropy as imported_before_the_watch
from torch.utils.data import DataLoader, TensorDataset

import trainwatch

QUIET = {"quiet": True, "strict": True, "flush_every": 4}


class Kept:
    """What a loop notes by hand, step by step and pass by pass."""

    def __init__(self, model):
        self.model = model
        self.losses, self.norms, self.passes = [], [], []

    def step(self, loss, scale=1.0):
        """Call after backward, before clipping."""
        self.losses.append(float(loss.detach()) if isinstance(loss, torch.Tensor) else float(loss))
        self.norms.append([float(p.grad.norm()) / scale for p in self.model.parameters()])


def net(outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, outputs))


def images(n=48, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 8, generator=generator), torch.randint(0, 3, (n,), generator=generator)


X, Y = images()
VX, VY = images(20, seed=2)


def batches(size=12):
    return zip(X.split(size), Y.split(size), strict=True)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def start(model, optimizer=None, **options):
    return trainwatch.watch(model, optimizer or sgd(model), settings=QUIET, **options)


def losses(watch, stream="cross_entropy"):
    return watch.record.series("train_loss", stream).values.tolist()


def norms(watch, key="default"):
    return watch.record.series("grad_norm", key).values


def validation(watch, stream="val"):
    series = watch.record.series("val_loss", stream)
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def stream_facts(watch):
    return {name: facts["kind"] for name, facts in watch.record.facts.get("validation", {}).items()}


def check(watch, kept, stream="cross_entropy", factor=1.0):
    watch.finish()
    assert losses(watch, stream) == pytest.approx(kept.losses, rel=1e-5)
    np.testing.assert_allclose(norms(watch), kept.norms, rtol=1e-4)
    factors = watch.record.series("loss_factor", stream)
    assert factors.values.tolist() == pytest.approx([factor] * len(factors), rel=1e-5)


def simple_loop(criterion, model=None, epochs=3, **options):
    model = model or net()
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer, **options)
    for _ in range(epochs):
        model.train()
        for x, y in batches():
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            kept.step(loss)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            kept.passes.append((len(kept.losses), float(criterion(model(VX), VY))))
    return watch, kept


CRITERIA = {
    "module": nn.CrossEntropyLoss(),
    "functional": lambda p, t: F.cross_entropy(p, t),
    "imported by name": imported_before_the_watch,
    "label smoothing": nn.CrossEntropyLoss(label_smoothing=0.1),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "positional weight": lambda p, t: F.cross_entropy(p, t, torch.tensor([1.0, 2.0, 3.0])),
}


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_a_loss_of_torch_is_seen_however_it_is_called(criterion):
    watch, kept = simple_loop(criterion)
    check(watch, kept)
    recorded = validation(watch)
    assert [s for s, _ in recorded] == [s for s, _ in kept.passes] == [4, 8, 12]
    assert [v for _, v in recorded] == pytest.approx([v for _, v in kept.passes], rel=1e-5)
    assert watch.record.facts["task"] == "multiclass"


def test_a_loss_per_sample_is_recorded_as_its_mean():
    model = net()
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)
    for x, y in batches():
        optimizer.zero_grad()
        each = F.cross_entropy(model(x), y, reduction="none")
        each.mean().backward()
        kept.step(each.mean())
        optimizer.step()
    watch.finish()
    assert losses(watch) == pytest.approx(kept.losses, rel=1e-5)
    assert losses(watch, "root") == pytest.approx(kept.losses, rel=1e-5)


def test_several_losses_are_streams_of_their_own_with_their_factors():
    model, parts = net(), {"cross_entropy": [], "l1_loss": [], "root": []}
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)
    for x, y in [*batches(), *batches()]:
        optimizer.zero_grad()
        out = model(x)
        main, side = F.cross_entropy(out, y), F.l1_loss(out, torch.zeros_like(out))
        total = main + 0.25 * side + 1e-3 * sum(p.square().sum() for p in model.parameters())
        total.backward()
        for name, value in zip(parts, (main, side, total), strict=True):
            parts[name].append(value.item())
        kept.step(total)
        optimizer.step()
    watch.finish()
    for name, values in parts.items():
        assert losses(watch, name) == pytest.approx(values, rel=1e-5)
    assert watch.record.series("loss_factor", "l1_loss").values[0] == pytest.approx(0.25)
    np.testing.assert_allclose(norms(watch), kept.norms, rtol=1e-4)


class WithLoss(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.net, self.form = net(), form

    def forward(self, x, y):
        out = self.net(x)
        loss = F.cross_entropy(out, y)
        return {"tensor": loss, "dict": {"loss": loss, "out": out}, "object": SimpleNamespace(loss=loss)}[self.form]


@pytest.mark.parametrize("form", ["tensor", "dict", "object"])
def test_a_loss_inside_the_model(form):
    model = WithLoss(form)
    pick = {"tensor": lambda o: o, "dict": lambda o: o["loss"], "object": lambda o: o.loss}[form]
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)
    for _ in range(2):
        for x, y in batches():
            optimizer.zero_grad()
            loss = pick(model(x, y))
            loss.backward()
            kept.step(loss)
            optimizer.step()
        with torch.no_grad():
            kept.passes.append((len(kept.losses), float(pick(model(VX, VY)))))
    check(watch, kept)
    assert validation(watch) == [(s, pytest.approx(v)) for s, v in kept.passes]


def test_a_loss_inside_the_model_that_is_no_loss_of_torch():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x, y):
            return {"loss": (self.net(x)[:, 0] - y).square().mean()}

    model = Own()
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)
    for x, y in [*batches(), *batches()]:
        optimizer.zero_grad()
        loss = model(x, y)["loss"]
        loss.backward()
        kept.step(loss)
        optimizer.step()
    with torch.no_grad():
        expected = float(model(VX, VY)["loss"])
    check(watch, kept, "model")
    assert validation(watch) == [(8, pytest.approx(expected))]


def test_a_criterion_of_ones_own():
    class Focal(nn.Module):
        def forward(self, out, y):
            each = F.cross_entropy(out, y, reduction="none")
            return ((1 - (-each).exp()) ** 2 * each).mean()

    focal = Focal()
    watch, kept = simple_loop(focal, loss_fn=focal)
    check(watch, kept, "Focal")
    assert "val:Focal" in watch.record.keys("val_loss")


@pytest.mark.parametrize("divide", [True, False])
def test_accumulation(divide):
    model = net()
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        values = []
        for x, y in batches():
            loss = F.cross_entropy(model(x), y)
            (loss / 4 if divide else loss).backward()
            values.append(loss.item())
        kept.step(np.mean(values))
        optimizer.step()
    check(watch, kept, factor=0.25 if divide else 1.0)
    assert watch.record.facts["run"]["samples"] == 3 * 48


def test_norms_are_those_before_clipping():
    model = net()
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)
    for x, y in batches():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        kept.step(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
    check(watch, kept)
    assert watch.record.facts["regularisation"]["clipping"] == {"max_norm": 0.01}


def test_a_scaler_is_taken_off_and_its_skips_are_no_steps():
    model = net()
    optimizer, kept = sgd(model), Kept(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    watch = start(model, optimizer)
    for i, (x, y) in enumerate([*batches(), *batches()]):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        scale = scaler.get_scale()
        scaler.scale(loss / 2).backward()
        if i == 5:
            model[0].weight.grad[0, 0] = float("inf")
        else:
            kept.step(loss, scale=scale)
        scaler.step(optimizer)
        scaler.update()
    check(watch, kept, factor=0.5)
    assert losses(watch, "root") == pytest.approx([v / 2 for v in kept.losses], rel=1e-5)
    assert watch.record.facts["scaler"] == {"used": True, "skipped_steps": 1, "in_a_row": 0}


def test_a_gan_has_a_stream_and_norms_for_each_optimizer():
    torch.manual_seed(0)
    models = {"G": nn.Linear(4, 8), "D": nn.Linear(8, 1)}
    optimizers = {name: torch.optim.Adam(m.parameters(), lr=1e-3) for name, m in models.items()}
    kept = {name: Kept(m) for name, m in models.items()}
    criterion = nn.BCEWithLogitsLoss()
    watch = start(models, optimizers)
    for x, _ in [*batches(), *batches()]:
        fake = models["G"](torch.randn(12, 4))
        optimizers["D"].zero_grad()
        real_loss = criterion(models["D"](x), torch.ones(12, 1))
        real_loss.backward()
        fake_loss = criterion(models["D"](fake.detach()), torch.zeros(12, 1))
        fake_loss.backward()
        kept["D"].step((real_loss + fake_loss) / 2)
        optimizers["D"].step()
        optimizers["G"].zero_grad()
        loss = criterion(models["D"](fake), torch.ones(12, 1))
        loss.backward()
        kept["G"].step(loss)
        optimizers["G"].step()
    watch.finish()
    for name in models:
        assert losses(watch, f"{name}/binary_cross_entropy_with_logits") == pytest.approx(kept[name].losses, rel=1e-5)
        np.testing.assert_allclose(norms(watch, name), kept[name].norms, rtol=1e-4)
    assert not watch.record.has("val_loss")


def test_lbfgs_records_its_last_evaluation_of_the_gradient():
    model = net()
    optimizer, kept = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4), Kept(model)
    watch = start(model, optimizer)
    for _ in range(3):

        def closure():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(X), Y)
            loss.backward()
            kept.step(loss)
            return loss

        optimizer.step(closure)
        kept.losses, kept.norms = kept.losses[:-4] + kept.losses[-1:], kept.norms[:-4] + kept.norms[-1:]
    watch.finish()
    np.testing.assert_allclose(norms(watch), kept.norms, rtol=1e-4)
    assert len(losses(watch)) == 3


def test_a_teacher_and_an_average_of_the_weights_are_not_validation():
    model = net()
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)
    average = copy.deepcopy(model)
    for x, y in [*batches(), *batches()]:
        with torch.no_grad():
            F.mse_loss(average(x), torch.zeros(12, 3))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        kept.step(loss)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        F.cross_entropy(average(VX), VY)
        mine = float(F.cross_entropy(model(VX), VY))
        F.cross_entropy(average(VX), VY)
    check(watch, kept)
    assert validation(watch) == [(8, pytest.approx(mine))]


def test_validation_before_the_first_step():
    model = net()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    with torch.no_grad():
        first = float(F.cross_entropy(model(VX), VY))
    F.cross_entropy(model(X), Y).backward()
    optimizer.step()
    with torch.no_grad():
        second = float(F.cross_entropy(model(VX), VY))
    watch.finish()
    assert validation(watch) == [(0, pytest.approx(first)), (1, pytest.approx(second))]


def loaders(shuffled_validation=False):
    other = TensorDataset(*images(30, seed=3))
    return (
        DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True),
        DataLoader(TensorDataset(VX, VY), batch_size=8, shuffle=shuffled_validation),
        DataLoader(other, batch_size=8),
    )


def evaluate(model, loader):
    model.eval()
    with torch.no_grad():
        pairs = [(float(F.cross_entropy(model(x), y)), len(y)) for x, y in loader]
    model.train()
    values, sizes = zip(*pairs, strict=True)
    return np.average(values, weights=sizes)


def loader_loop(evaluated, epochs=3, **options):
    model = net()
    optimizer = sgd(model)
    watch = start(model, optimizer, **options)
    train, *_ = evaluated[0]
    seen = [[] for _ in evaluated[1]]
    for _ in range(epochs):
        for x, y in train:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        for values, loader in zip(seen, evaluated[1], strict=True):
            values.append(evaluate(model, loader))
    watch.finish()
    return watch, seen


@pytest.mark.parametrize("where", ["before the step", "after the step"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_look_at_the_batch_that_is_trained_on_is_no_validation(where, inside):
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x, y):
            return F.cross_entropy(self.net(x), y)

    train, one, _ = loaders()
    model = WithLoss() if inside else net()
    criterion = model if inside else lambda x, y: F.cross_entropy(model(x), y)
    optimizer, seen = sgd(model), []

    def look(x, y):
        model.eval()
        with torch.no_grad():
            criterion(x, y)
        model.train()

    watch = start(model, optimizer)
    for _ in range(3):
        for x, y in train:
            optimizer.zero_grad()
            criterion(x, y).backward()
            if where == "before the step":
                look(x, y)
            optimizer.step()
            if where == "after the step":
                look(x, y)
        model.eval()
        with torch.no_grad():
            pairs = [(float(criterion(x, y)), len(y)) for x, y in one]
        model.train()
        seen.append(np.average([value for value, _ in pairs], weights=[size for _, size in pairs]))
    report = watch.finish()
    assert watch.record.keys("val_loss") == ["val"]
    assert [v for _, v in validation(watch)] == pytest.approx(seen, rel=1e-5)
    assert watch.record.steps == 12
    assert "TW701" not in [d.code for d in report.diagnoses]


def test_a_whole_set_that_is_trained_on_step_by_step_is_evaluated_in_passes():
    model = net()
    optimizer = sgd(model)
    watch, seen = start(model, optimizer), []
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
        with torch.no_grad():
            seen.append(float(F.cross_entropy(model(X), Y)))
    watch.finish()
    assert [v for _, v in validation(watch)] == pytest.approx(seen[1:])  # after one step it may be a batch of many


def test_two_validation_loaders_are_two_streams():
    train, one, two = loaders()
    watch, (first, second) = loader_loop(((train,), (one, two)))
    assert [v for _, v in validation(watch)] == pytest.approx(first, rel=1e-5)
    assert [v for _, v in validation(watch, "val/1")] == pytest.approx(second, rel=1e-5)
    assert [s for s, _ in validation(watch, "val/1")] == [4, 8, 12]
    assert watch.record.facts["validation"]["val"]["primary"]
    assert watch.record.facts["loaders"]["train"]["samples"] == 48
    assert watch.record.facts["run"]["epochs"] == 3


def test_the_primary_stream_can_be_named():
    train, one, two = loaders()
    watch, _ = loader_loop(((train,), (one, two)), primary_validation="val/1")
    assert watch.record.facts["validation"]["val/1"]["primary"]
    assert not watch.record.facts["validation"]["val"]["primary"]


def test_evaluation_on_the_training_set_is_told_from_validation():
    train, one, _ = loaders()
    watch, _ = loader_loop(((train,), (train, one)))
    assert stream_facts(watch) == {"val": "train-eval", "val/1": "val"}
    assert watch.record.facts["validation"]["val/1"]["primary"]


@pytest.mark.parametrize("features", [3, 8])
def test_validation_samples_that_recur_in_training_by_chance_are_no_training_data(features):
    """Of three yes / no answers all come up in both parts, of eight more than half do."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (512, features), generator=draw).float()
    y = torch.randint(0, 3, (512,), generator=draw)
    model = nn.Linear(features, 3)
    optimizer = sgd(model)
    watch = start(model, optimizer)
    parts = [DataLoader(TensorDataset(x[part], y[part]), batch_size=32) for part in (slice(384), slice(384, 512))]
    for _ in range(2):
        for some, targets in parts[0]:
            optimizer.zero_grad()
            F.cross_entropy(model(some), targets).backward()
            optimizer.step()
        for part in parts:
            evaluate(model, part)
    watch.finish()
    assert stream_facts(watch)["val/1"] == "val"


def test_a_loader_over_training_data_can_be_named():
    train, one, two = loaders()
    watch, _ = loader_loop(((train,), (two, one)), train_eval_loader=two)
    assert stream_facts(watch) == {"train-eval": "train-eval", "val": "val"}


@pytest.mark.parametrize("shuffled", [False, True])
def test_shuffled_validation_is_one_stream_but_not_paired(shuffled):
    train, one, _ = loaders(shuffled_validation=shuffled)
    watch, (values,) = loader_loop(((train,), (one,)), epochs=4)
    assert [v for _, v in validation(watch)] == pytest.approx(values, rel=1e-5)
    assert watch.record.facts["validation"]["val"]["paired"] is not shuffled


@pytest.mark.parametrize("evaluating", [True, False], ids=["eval-mode", "forgot-eval-too"])
def test_validation_with_gradients_switched_on(evaluating):
    model = net()
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)
    for _ in range(4):
        model.train()
        for x, y in batches():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            kept.step(loss)
            optimizer.step()
        model.train(not evaluating)
        values = [F.cross_entropy(model(x), y).item() for x, y in zip(VX.split(10), VY.split(10), strict=True)]
        kept.passes.append((len(kept.losses), np.mean(values)))
    check(watch, kept)
    assert validation(watch) == [(s, pytest.approx(v)) for s, v in kept.passes]
    assert watch.record.series("val_with_grad", "val").values.tolist() == [1.0] * 4


def test_sets_evaluated_whole_without_a_loader():
    model = net()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    expected = {"val": [], "val/1": []}
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
        with torch.no_grad():
            expected["val"].append(float(F.cross_entropy(model(VX), VY)))
            expected["val/1"].append(float(F.cross_entropy(model(X), Y)))
    watch.finish()
    for stream, values in expected.items():
        assert [v for _, v in validation(watch, stream)] == pytest.approx(values, rel=1e-5)
    assert stream_facts(watch) == {"val": "val", "val/1": "train-eval"}


def test_dict_batches():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, batch):
            return self.net(batch["x"])

    model = Net()
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)
    for x, y in batches():
        optimizer.zero_grad()
        loss = F.cross_entropy(model({"x": x}), y)
        loss.backward()
        kept.step(loss)
        optimizer.step()
    check(watch, kept)


@pytest.mark.parametrize("form", ["flat", "channels"])
def test_language_model_logits_with_ignored_positions(form):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 11))
    tokens = torch.randint(0, 11, (8, 5))
    targets = tokens.roll(-1, 1).clone()
    targets[:, -1] = -100
    optimizer, kept = sgd(model), Kept(model)

    def loss_of(logits):
        if form == "flat":
            return F.cross_entropy(logits.reshape(-1, 11), targets.reshape(-1))
        return F.cross_entropy(logits.transpose(1, 2), targets)

    watch = start(model, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        loss = loss_of(model(tokens))
        loss.backward()
        kept.step(loss)
        optimizer.step()
    with torch.no_grad():
        expected = float(loss_of(model(tokens)))
    check(watch, kept)
    assert validation(watch) == [(3, pytest.approx(expected))]
    rows = watch.record.series("val_sample_loss", "val").values[0]
    assert np.nanmean(rows) == pytest.approx(expected, rel=1e-5)
    assert watch.record.facts["task"] == "language-model"
    counts = watch.record.series("train_classes", "targets").values.sum(0)
    assert counts[-1] == 3 * 8  # ignored
    assert counts[:-1].tolist() == [3 * int((targets == c).sum()) for c in range(11)]


def test_predictions_at_several_places():
    torch.manual_seed(0)
    model = nn.Conv1d(2, 3, 3, padding=1)
    x, y = torch.randn(6, 2, 7), torch.randint(0, 3, (6, 7))
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        kept.step(loss)
        optimizer.step()
    with torch.no_grad():
        out = model(x)
        expected = float(F.cross_entropy(out, y))
    check(watch, kept)
    assert watch.record.series("val_sample_loss", "val").values[0].mean() == pytest.approx(expected, rel=1e-5)
    confusion = watch.record.series("val_confusion", "val").values[0]
    assert confusion.sum() == 42
    assert np.trace(confusion) == int((out.argmax(1) == y).sum())


@pytest.mark.parametrize(
    ("loss", "task", "outputs", "target"),
    [
        (F.mse_loss, "regression", 1, torch.randn(20, 1)),
        (F.binary_cross_entropy_with_logits, "binary", 1, (torch.rand(20, 1) > 0.3).float()),
        (F.binary_cross_entropy_with_logits, "multilabel", 4, (torch.rand(20, 4) > 0.6).float()),
    ],
    ids=["regression", "one-logit", "multi-label"],
)
def test_other_tasks(loss, task, outputs, target):
    model = net(outputs)
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        value = loss(model(VX), target)
        value.backward()
        kept.step(value)
        optimizer.step()
    with torch.no_grad():
        out = model(VX)
        expected = float(loss(out, target))
    check(watch, kept, loss.__name__)
    assert watch.record.facts["task"] == task
    assert validation(watch) == [(3, pytest.approx(expected))]
    assert watch.record.series("val_sample_loss", "val").values[0].mean() == pytest.approx(expected, rel=1e-5)
    if task == "binary":
        confusion = watch.record.series("val_confusion", "val").values[0]
        assert np.trace(confusion) == int(((out > 0) == (target > 0.5)).sum())
        scores = watch.record.series("val_scores", "val").values[0]
        np.testing.assert_allclose(scores[:, 0], torch.cat([out, target], 1), rtol=1e-5)
        assert watch.record.series("train_classes", "targets").values.sum(0)[:2].tolist() == [
            3 * int((target < 0.5).sum()),
            3 * int((target > 0.5).sum()),
        ]
    if task == "multilabel":
        scores = watch.record.series("val_scores", "val").values[0]
        np.testing.assert_allclose(scores, torch.stack([out, target], 2), rtol=1e-5)
        assert watch.record.series("train_classes", "labels").values.sum(0).tolist() == [
            *(3 * target.sum(0)).tolist(),
            60.0,
        ]


def test_losses_handed_over():
    model = net()
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)

    def own(out, y):
        return -out.log_softmax(1)[torch.arange(len(y)), y].mean()

    for _ in range(2):
        for x, y in batches():
            optimizer.zero_grad()
            out = model(x)
            loss = own(out, y)
            loss.backward()
            kept.step(loss)
            watch.observe_train(loss, outputs=out, targets=y)
            optimizer.step()
        with torch.no_grad():
            out = model(VX)
            kept.passes.append((len(kept.losses), float(own(out, VY))))
            watch.observe_val(own(out, VY), outputs=out, targets=VY)
        watch.epoch_end(accuracy=0.5)
    watch.finish()
    assert losses(watch, "observed") == pytest.approx(kept.losses, rel=1e-5)
    assert validation(watch) == [(s, pytest.approx(v)) for s, v in kept.passes]
    assert watch.record.series("val_confusion", "val").values[0].sum() == 20
    assert watch.record.series("metric", "accuracy").values.tolist() == [0.5, 0.5]
    assert watch.record.series("train_classes", "targets").values.sum() == 96


def test_a_loss_that_is_seen_and_handed_over_counts_once():
    model = net()
    optimizer, kept = sgd(model), Kept(model)
    watch = start(model, optimizer)
    for x, y in batches():
        optimizer.zero_grad()
        out = model(x)
        loss = F.cross_entropy(out, y)
        loss.backward()
        kept.step(loss)
        watch.train_step(loss, outputs=out, targets=y)
        optimizer.step()
        with torch.no_grad():
            loss = F.cross_entropy(model(VX), VY)
            watch.val_step(loss, outputs=model(VX), targets=VY)
    watch.finish()
    assert watch.record.keys("train_loss") == ["cross_entropy"]
    assert watch.record.facts["validation"]["val"]["samples"] == 20


def test_passes_named_by_the_user():
    model = net()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    for _ in range(2):
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
        for name in ("clean", "noisy"):
            with watch.validation(name), torch.no_grad():
                for x, y in zip(VX.split(7), VY.split(7), strict=True):
                    F.cross_entropy(model(x), y)
    watch.finish()
    assert [s for s, _ in validation(watch, "clean")] == [1, 2]
    assert stream_facts(watch) == {"clean": "val", "noisy": "val"}


def test_labels_out_of_range_and_an_empty_batch_do_no_harm():
    model = net()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y.clone().fill_(-100).index_copy(0, torch.tensor([0]), Y[:1])).backward()
        optimizer.step()
        with torch.no_grad():
            F.cross_entropy(model(VX[:0]), VY[:0])
            with contextlib.suppress(IndexError):
                F.cross_entropy(model(VX), VY + 7)
    watch.finish()
    counts = watch.record.series("train_classes", "targets").values.sum(0)
    assert counts[-1] == 3 * 47
    assert watch.record.faults == []


def test_modules_in_training_mode_during_validation_are_named():
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3))
    optimizer = sgd(model)
    watch = start(model, optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
        with torch.no_grad():
            F.cross_entropy(model(VX), VY)
    watch.finish()
    facts = watch.record.facts["validation"]["val"]
    assert facts["modules_in_train_mode"] == ["1", "2"]
    assert facts["batch_norm_in_train_mode"]
    assert facts["root_in_train_mode"]


def test_parameters_stand_in_order_of_execution():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(16, 3), nn.Linear(8, 16)

        def forward(self, x):
            return self.head(self.body(x).relu())

    model = Backwards()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    F.cross_entropy(model(X), Y).backward()
    optimizer.step()
    watch.finish()
    order = {p["name"]: p["order"] for p in watch.record.facts["parameters"]}
    assert order["body.weight"] < order["head.weight"]


def test_bad_batches_that_the_loop_skips_are_no_validation_pass():
    model = net()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    for i, (x, y) in enumerate(batches()):
        loss = F.cross_entropy(model(x * float("nan") if i == 1 else x), y)
        if not torch.isfinite(loss):
            continue
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    watch.finish()
    assert not watch.record.has("val_loss")


def test_validation_with_gradients_keeps_its_bad_batches():
    model = net()
    optimizer = sgd(model)
    watch = start(model, optimizer)
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    for i, (x, y) in enumerate(batches()):
        F.cross_entropy(model(x * float("nan") if i == 1 else x), y)
    watch.finish()
    assert np.isinf(watch.record.series("val_loss", "val").values).tolist() == [True]
