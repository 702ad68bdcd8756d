"""Small trainings at saddles, on plateaus, in valleys and in good health, under a watch whose probes run at the end."""

from itertools import pairwise

import torch
from torch import nn

import trainwatch
from trained import split
from trainwatch.config import Settings
from trainwatch.rules import NotChecked

KINDS = ("saddle", "sharpness", "lower_rate", "step_line", "reference", "train_eval", "activations")
FLAT = (nn.Flatten(0),)


def run(
    data, model, seed=0, *, epochs, optimizer=None, criterion=None, batch=32, encode=False, factor=1.0, end=True,
    kinds=KINDS,
):  # fmt: skip
    """Train and give back the watch; it has ended, unless told otherwise.

    Args:
        data: A name that `split` knows, or (x, x_val, y, y_val).
        model: Makes one.
        encode: The targets are the inputs.
        factor: On what is backpropagated.
        end: Finish the watch.
        kinds: Of probes, which run at the end.
    """
    torch.set_num_threads(1)
    x, xv, y, yv = split(data, seed) if isinstance(data, str) else data
    y, yv = (x, xv) if encode else (y, yv)
    criterion = criterion or (nn.MSELoss() if y.is_floating_point() else nn.CrossEntropyLoss())
    torch.manual_seed(seed)
    model = model()
    optim = (optimizer or sgd(0.01))(model.parameters())
    settings = Settings(quiet=True, strict=True, probes=dict.fromkeys(kinds, 10**9))
    watch = trainwatch.watch(model, optim, settings=settings)
    train(model, optim, criterion, (x, xv, y, yv), epochs, batch, factor)
    if end:
        watch.finish()
        assert not watch.record.faults
    return watch


def train(model, optim, criterion, data, epochs, batch=32, factor=1.0):
    x, xv, y, yv = data
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            optim.zero_grad()
            (factor * criterion(model(x[rows]), y[rows])).backward()
            optim.step()
        with torch.no_grad():
            criterion(model(xv), yv)


def found(rule, record):
    """The diagnosis of a rule; None where it is silent. Measurements that it needs are there."""
    assert all(map(record.has, rule.needs))
    return next(iter(rule.check(record)), None)


def silent(rule, record):
    """The rule finds nothing, or abstains."""
    try:
        return not list(rule.check(record))
    except NotChecked:
        return True


def sgd(lr, **more):
    return lambda parameters: torch.optim.SGD(parameters, lr, **more)


def adam(lr, **more):
    return lambda parameters: torch.optim.Adam(parameters, lr, **more)


def scaled(net, scale):
    for p in net.parameters():
        nn.init.normal_(p, std=scale)
    return net


def mlp(inputs, outputs, width=10, activation=nn.Tanh, depth=1, end=()):
    layers = []
    for n in range(depth):
        layers += [nn.Linear(width if n else inputs, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, outputs), *end)


def linear(*widths, end=()):
    return nn.Sequential(*(nn.Linear(i, o, bias=False) for i, o in pairwise(widths)), *end)


def dead(net):
    nn.init.constant_(net[2].bias, -20.0)
    return net


class Ridge(nn.Module):
    """x^2 - y^2 + y^4 / 4 for each sample, lowest at y^2 = 2; on the ridge y = 0 the gradient leads to x = 0."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.both = nn.Parameter(torch.tensor([0.7 * scale, 0.0]))
        self.scale = scale

    def forward(self, steepness):
        x, y = self.both / self.scale
        return x**2 - steepness * y**2 + y**4 / 4


def ridge_data(seed):
    """What `Ridge` is given, and targets below all that it can return, so that the loss is its height above them."""
    draw = torch.Generator().manual_seed(seed)
    x, xv = (1 + 0.1 * torch.randn(n, generator=draw) for n in (160, 40))
    return x, xv, torch.full_like(x, -2.0), torch.full_like(xv, -2.0)


def noise(seed, regression=False):
    """Inputs that say nothing of the targets."""
    draw = torch.Generator().manual_seed(seed)
    x, y = torch.randn(800, 10, generator=draw), torch.randint(0, 3, (800,), generator=draw)
    y = torch.randn(800, generator=draw) if regression else y
    return x[:600], x[600:], y[:600], y[600:]


SADDLES = {
    "deep linear": ("diabetes", lambda: scaled(linear(10, 8, 8, 1, end=FLAT), 3e-2), {"epochs": 20}),
    "tanh near zero": ("breast_cancer", lambda: scaled(mlp(30, 2), 1e-4), {"epochs": 6}),
    "autoencoder": ("wine", lambda: scaled(linear(13, 4, 13), 1e-4), {"epochs": 40, "encode": True}),
}
PLATEAUS = {
    "deep sigmoids": ("digits", lambda: mlp(64, 10, depth=5, activation=nn.Sigmoid), {"epochs": 5}),
    "deep sigmoids, few samples": ("wine", lambda: mlp(13, 3, depth=5, activation=nn.Sigmoid), {"epochs": 20}),
    "all samples at once": (
        "digits",
        lambda: mlp(64, 10, 16, nn.Sigmoid, 6),
        {"epochs": 60, "optimizer": sgd(0.1), "batch": 2000},
    ),
}
VALLEYS = {
    "all samples at once": (
        "diabetes",
        lambda: mlp(10, 1, 16, nn.ReLU, end=FLAT),
        {"epochs": 80, "optimizer": sgd(0.5), "batch": 400},
    ),
}
HEALTHY = {
    "digits, adam": ("digits", lambda: mlp(64, 10, 16, nn.ReLU), {"epochs": 5, "optimizer": adam(3e-3)}),
    "digits, momentum": ("digits", lambda: mlp(64, 10, 16), {"epochs": 5, "optimizer": sgd(0.05, momentum=0.9)}),
    "wine": ("wine", lambda: mlp(13, 3, 16, nn.ReLU), {"epochs": 30, "optimizer": adam(3e-3)}),
    "breast cancer": ("breast_cancer", lambda: mlp(30, 2, 16), {"epochs": 10, "optimizer": sgd(0.1)}),
    "diabetes": ("diabetes", lambda: mlp(10, 1, 12, depth=2, end=FLAT), {"epochs": 20, "optimizer": sgd(0.05)}),
    "a bowl": ("digits", lambda: nn.Sequential(nn.Linear(64, 10)), {"epochs": 5}),
    "a flat minimum": ("diabetes", lambda: linear(10, 8, 1, end=FLAT), {"epochs": 60, "optimizer": sgd(0.05)}),
    "at the edge of stability": (
        "diabetes",
        lambda: mlp(10, 1, 32, end=FLAT),
        {"epochs": 300, "optimizer": sgd(0.2), "batch": 400},
    ),
    "at a high rate": (
        "digits",
        lambda: mlp(64, 10, 16),
        {"epochs": 8, "optimizer": sgd(1.0), "batch": 128},
    ),
}
