"""Benches for probes: real held batches of given tensors, and a record with the facts that probes read."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from trainwatch.capture.held import HeldBatch
from trainwatch.probes.bench import Bench
from trainwatch.record import RunRecord

ROOMY = 1 << 24


@dataclass
class Given:
    """A held batch made by hand, whose loss is the mean of what the model returns."""

    x: torch.Tensor
    samples: int = 0

    def predict(self, model):
        return model(self.x)

    def loss(self, model):
        return self.predict(model).mean()


def held(x, y, function="cross_entropy", **keywords):
    """A batch as a run holds it, whose loss takes what the model returns (flat, where targets are)."""
    flat = y is not None and y.ndim == 1 and y.is_floating_point()
    predictions = (lambda out: out.reshape(-1)) if flat else (lambda out: out)
    return HeldBatch("train", 0, len(x), 0, (), (x,), {}, function, y, (), keywords, predictions)


def in_batches(x, y, size=32, **keywords):
    return [held(x[rows], y[rows], **keywords) for rows in torch.arange(len(x)).split(size)]


def bench(model, train, val=(), optimizer=None, step=100, **facts):
    """A bench at the end of a run of some steps."""
    record = RunRecord()
    optimizers = () if optimizer is None else (optimizer,)
    if optimizer is not None:
        options = ("weight_decay", "l1")
        groups = [{option: g.get(option, 0.0) for option in options} for g in optimizer.param_groups]
        record.set_fact("optimizers", {"default": {"type": type(optimizer).__name__, "groups": groups}})
    for topic, value in facts.items():
        record.set_fact(topic, value)
    batches = {"train": list(train), "val": list(val)}
    return Bench(model, batches.get, "none was held", record, step, ROOMY, optimizers)


def row(given, quantity, key):
    return given.record.series(quantity, key).values[-1].tolist()


def net(*widths, dropout=0.0, norm=False):
    layers = []
    for i, o in pairwise(widths[:-1]):
        layers += [nn.Linear(i, o), *([nn.BatchNorm1d(o)] if norm else []), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def blobs(n=160, seed=0, classes=3, features=6):
    """Two draws of points round a few centres, with their classes: easy to tell apart."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2.0 * torch.randn(classes, features, generator=generator)
    y = torch.arange(2 * n) % classes
    x = centres[y] + torch.randn(2 * n, features, generator=generator)
    return x[:n], y[:n], x[n:], y[n:]
