"""Weights that are NaN, loaders and batches without anything in them, one sample: nothing is harmed or made up."""

import gc
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainwatch

generator = torch.Generator().manual_seed(3)
X = torch.randn(240, 8, generator=generator)
Y = (X[:, 0] + 0.3 * torch.randn(240, generator=generator) > 0).long()
SETTINGS = {
    "quiet": True,
    "strict": True,
    "flush_every": 5,
    "overhead": 0.9,
    "ignore": {"TW205": "forty steps are few"},
}
QUICK = {"activations": 10, "train_eval": 10, "gradient_noise": 10}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, x):
        return self.head(F.relu(self.body(x)))


def loader(rows, shuffle=False, batch=16):
    return DataLoader(TensorDataset(X[rows], Y[rows]), batch_size=batch, shuffle=shuffle)


def train(*, watched, train, val, model=None, probes="off", epochs=4):
    """Train, with a pass over `val` each epoch; weights and random numbers at the end, and the watch."""
    model = model or Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = {**SETTINGS, "probes": probes}
    watch = trainwatch.watch(model, optimizer, settings=settings) if watched else None
    for _ in range(epochs):
        for x, y in train:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            for x, y in val:
                F.cross_entropy(model(x), y)
    if watch is not None:
        watch.finish()
    return [*(t.clone() for t in model.state_dict().values()), torch.get_rng_state()], watch


def both(**options):
    """The watch of a run that ended as the unwatched one, NaN for NaN."""
    make = options.pop("make", Net)
    plain, _ = train(watched=False, model=make(), **options)
    state, watch = train(watched=True, model=make(), **options)
    for one, other in zip(plain, state, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert not watch.record.faults
    return watch


def test_weights_that_are_nan_from_the_start_are_named_and_left_alone_by_probes():
    def spoiled():
        model = Net()
        model.head.weight.data[0, 0] = math.nan
        return model

    watch = both(make=spoiled, train=loader(slice(0, 160)), val=loader(slice(160, 240)), probes=QUICK)
    (found,) = [d for d in watch.report.findings("error") if d.code == "TW303"]
    assert found.where == ("head.weight",)
    assert found.onset_step == 0
    assert not any(watch.record.has(q) for q in ("activity", "evaluated_loss", "gradient_noise"))
    assert watch.record.facts["switched_off"]["evaluated_loss"] == "weights of the model are not finite"


def test_one_validation_sample_gives_curves_and_no_finding():
    watch = both(train=loader(slice(0, 160)), val=loader(slice(160, 161)))
    assert len(watch.record.series("val_loss", "val")) == 4
    assert watch.record.latest("val_confusion", "val")[1].sum() == 1
    assert watch.report.verdict == "healthy"


@pytest.mark.parametrize("val", [[], loader(slice(0, 0))], ids=["none", "empty"])
def test_without_validation_rules_on_it_are_not_checked(val):
    watch = both(train=loader(slice(0, 160)), val=val)
    assert not watch.record.has("val_loss")
    assert "validation" in watch.report.not_checked["TW201"]
    assert watch.report.verdict == "healthy"


def test_an_empty_training_loader_is_not_judged():
    watch = both(train=loader(slice(0, 0)), val=loader(slice(160, 240)))
    assert watch.report.verdict == "not-judged"
    assert watch.report.facts["run"]["steps"] == 0


@pytest.mark.parametrize("part", [1, 0.5], ids=["the loss", "half of it"])
def test_a_batch_without_samples_has_no_loss_and_is_no_fault(part):
    class Batches:
        def __iter__(self):
            for i, rows in enumerate(torch.arange(160).split(16)):
                yield (X[rows], Y[rows]) if i % 4 else (X[:0], Y[:0])

    weights = []

    def training(watched):
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        watch = trainwatch.watch(model, optimizer, settings={**SETTINGS, "probes": "off"}) if watched else None
        for _ in range(4):
            for x, y in Batches():
                optimizer.zero_grad()
                (part * F.cross_entropy(model(x), y)).backward()
                optimizer.step()
        weights.append([t.clone() for t in model.state_dict().values()])
        return watch

    training(False)
    watch = training(True)
    report = watch.finish()
    assert all(map(torch.equal, *weights))
    assert report.verdict == "healthy"
    losses = watch.record.series("train_loss", "cross_entropy")
    assert losses.steps.tolist() == [s for s in range(40) if s % 10 % 4]
    assert torch.as_tensor(losses.values.copy()).isfinite().all()
    assert "12 batches held no sample and have no loss" in report.overhead["skipped"]


OUT_OF_MEMORY = {
    "of the accelerator": torch.cuda.OutOfMemoryError("planted"),
    "of another": RuntimeError("CUDA error: out of memory"),
    "of the host": MemoryError(),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_a_probe_that_runs_out_of_memory_gives_up_and_lets_its_copy_go(error):
    copies = []

    class Large(Net):
        def forward(self, x):
            if self is not live[-1]:
                copies.append(weakref.ref(self))
                raise error
            return super().forward(x)

    live = []

    def made():
        live.append(Large())
        return live[-1]

    watch = both(make=made, train=loader(slice(0, 160)), val=loader(slice(160, 240)), probes={"train_eval": 10})
    error.__traceback__ = None  # it is the test that holds the exception
    gc.collect()
    assert copies
    assert not any(copy() for copy in copies)
    assert watch.record.facts["switched_off"]["evaluated_loss"] == "there was too little memory for the experiment"
    assert watch.report.verdict == "healthy"
