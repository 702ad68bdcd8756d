"""Small real trainings of tables, judged at their end."""

import math
from functools import cache
from unittest import mock

import numpy as np
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch import nn

import trainwatch
from trainwatch.config import ALL, Settings

CLASSES = {"digits": 12, "wine": 40, "breast_cancer": 15}  # epochs that suffice
REGRESSIONS = {"diabetes": 20, "friedman": 25}
OPTIMIZERS = {
    "adam": lambda p, decay: torch.optim.Adam(p, lr=3e-3, weight_decay=decay),
    "sgd": lambda p, decay: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=decay),
}


@cache
def split(name, seed):
    """Training and validation inputs, training and validation targets, standardised."""
    if name == "friedman":
        x, y = datasets.make_friedman1(600, noise=1.0, random_state=1)
    elif name == "spirals":
        draw = np.random.default_rng(0)
        t, y = np.sqrt(draw.random(800)) * 3 * np.pi, draw.integers(0, 2, 800)
        x = np.c_[np.cos(t + np.pi * y) * t, np.sin(t + np.pi * y) * t] + 0.3 * draw.standard_normal((800, 2))
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name in REGRESSIONS:
        y = ((y - y.mean()) / y.std()).astype(np.float32)
    x = ((x - x.mean(0)) / (x.std(0) + 1e-9)).astype(np.float32)
    return tuple(torch.as_tensor(part) for part in train_test_split(x, y, random_state=seed))


def flipped(y, share, seed):
    """Labels of which a share is another one of those that there are."""
    draw = np.random.default_rng(seed)
    wrong, classes = torch.as_tensor(draw.random(len(y)) < share), int(y.max()) + 1 if share else 1
    other = torch.as_tensor(draw.integers(1, classes, len(y))) if share else 0
    return torch.where(wrong, (y + other) % classes, y)


def trained(
    name,
    seed,
    *,
    width=64,
    depth=1,
    p=0.0,
    decay=0.0,
    prox=0.0,
    optimizer="adam",
    epochs=None,
    flips=0.0,
    flips_val=0.0,
    few=0,
    moved=None,
    noise=0.0,
    one_hot=False,
    mixed=0.0,
    judges=ALL,
):
    """The report on a net of some hidden layers, of few samples, of samples moved, or under noise.

    Args:
        name: Of the data.
        seed: Of split, weights and order.
        width, depth, p, decay, prox, optimizer, epochs: Of the net and its training.
        flips, flips_val: Shares of the labels that are exchanged for others.
        few: Training samples; 0 for all.
        moved: Changes inputs and targets of training and validation.
        noise: On training inputs, anew in each batch.
        one_hot: Classes are learned by a squared error.
        mixed: Share of the training batches whose samples are mixed, each half and half with another.
        judges: Rules that judge and get their probes.
    """
    x, xv, y, yv = split(name, seed)
    x, y = x[: few or None], y[: few or None]
    x, y, xv, yv = moved(x, y, xv, yv) if moved else (x, y, xv, yv)
    y, yv = flipped(y, flips, seed), flipped(yv, flips_val, seed + 100)
    regression = name in REGRESSIONS
    torch.manual_seed(seed)
    layers, wide = [], x.shape[1]
    for _ in range(depth):
        layers += [nn.Linear(wide, width), nn.ReLU(), nn.Dropout(p)]
        wide = width
    last = [nn.Linear(wide, 1), nn.Flatten(0)] if regression else [nn.Linear(wide, int(y.max()) + 1)]
    model, criterion = nn.Sequential(*layers, *last), nn.MSELoss() if regression or one_hot else nn.CrossEntropyLoss()
    if one_hot:
        y, yv = (nn.functional.one_hot(part).float() for part in (y, yv))
    optim = OPTIMIZERS[optimizer](model.parameters(), decay)
    if prox:
        trainwatch.prox(optim, l1=prox)
    watch = trainwatch.watch(model, optim, settings=Settings(quiet=True, strict=True, select=judges))
    for _ in range(epochs or (CLASSES | REGRESSIONS)[name]):
        model.train()
        for rows in torch.randperm(len(x)).split(32):
            optim.zero_grad()
            if mixed and torch.rand(()) < mixed:
                others = rows[torch.randperm(len(rows))]
                predicted = model((x[rows] + x[others]) / 2)
                loss = (criterion(predicted, y[rows]) + criterion(predicted, y[others])) / 2
            else:
                loss = criterion(model(x[rows] + noise * torch.randn_like(x[rows])), y[rows])
            loss.backward()
            optim.step()
        model.eval()
        with torch.no_grad():
            for rows in torch.arange(len(xv)).split(64):
                criterion(model(xv[rows]), yv[rows])
    with mock.patch("trainwatch.monitor.LAST_ROUND", math.inf):  # seconds: what is asked for is measured
        return watch.finish()
