"""Small real trainings of nets with an L1 or L2 term in their loss, or `trainwatch.prox` behind their optimiser."""

import torch
from torch import nn

import trainwatch
from trained import REGRESSIONS, split
from trainwatch.config import Settings

L1, PROX = "l1", "prox"
EPOCHS = {"digits": 20, "breast_cancer": 30, "diabetes": 30, "wine": 50}
OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=3e-3),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
}


def training(name, seed, l1=0.0, how=L1, optimizer="adam", epochs=None, **settings):
    """A net of two hidden layers after its training: the watch, the net, and its criterion and data."""
    x, xv, y, yv = split(name, seed)
    torch.manual_seed(seed)
    regression = name in REGRESSIONS
    last = [nn.Linear(64, 1), nn.Flatten(0)] if regression else [nn.Linear(64, int(y.max()) + 1)]
    model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), *last)
    criterion = nn.MSELoss() if regression else nn.CrossEntropyLoss()
    optim = (OPTIMIZERS.get(optimizer) or optimizer)(model.parameters())
    if how == PROX and l1:
        trainwatch.prox(optim, l1=l1)
    watch = trainwatch.watch(
        model, optim, settings=Settings(**{"quiet": True, "strict": True, "probes": "off", **settings})
    )
    for _ in range(epochs or EPOCHS[name]):
        for rows in torch.randperm(len(x))[: len(x) // 32 * 32].split(32):  # a small last batch is a jolt to zeros
            optim.zero_grad()
            loss = criterion(model(x[rows]), y[rows])
            if how == L1 and l1:
                loss = loss + l1 * sum(p.abs().sum() for p in model.parameters())
            loss.backward()
            optim.step()
        with torch.no_grad():
            for rows in torch.arange(len(xv)).split(64):
                criterion(model(xv[rows]), yv[rows])
    watch.finish()
    return watch, model, criterion, (x, y, xv, yv)


def zeros_in(model):
    """Share of exact zeros among the weights of two dimensions."""
    weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.ndim > 1])
    return float((weights == 0).float().mean())
