"""Small real trainings on tables whose inputs or targets are scaled as told."""

import torch
from sklearn.datasets import load_diabetes, load_wine
from torch import nn

import trainwatch

SETTINGS = {"quiet": True, "strict": True}


def table(name, seed, inputs="standard", targets="standard"):
    """(x, y, x_val, y_val) as tensors; ``standard`` or ``raw``."""
    x, y = {"wine": load_wine, "diabetes": load_diabetes}[name](return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, y = torch.tensor(x, dtype=torch.float32)[order], torch.tensor(y)[order]
    if inputs == "standard":
        x = (x - x.mean(0)) / x.std(0)
    if name == "diabetes":
        y = y.float()[:, None]
        y = (y - y.mean()) / y.std() if targets == "standard" else y
    cut = len(x) // 4
    return x[cut:], y[cut:], x[:cut], y[:cut]


def train(data, criterion, *, head=3, seed=0, first=(), hidden=32, optimizer=torch.optim.SGD, lr=0.05, epochs=30,
          val_factor=1.0, falls=False, **settings):  # fmt: skip
    """Train an MLP, or without hidden units a linear model, under a watch and give back (report, record).

    Args:
        falls: The rate falls to nothing along a line.
        **settings: Of the watch, beyond `SETTINGS`.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    x, y, x_val, y_val = data
    body = (nn.Linear(x.shape[1], hidden), nn.ReLU()) if hidden else ()
    model = nn.Sequential(*first, *body, nn.Linear(hidden or x.shape[1], head))
    steps = optimizer(model.parameters(), lr=lr)
    rate = torch.optim.lr_scheduler.LinearLR(steps, 1.0, 0.0 if falls else 1.0, epochs)
    with trainwatch.watch(model, steps, loss_fn=criterion, settings={**SETTINGS, **settings}) as watch:
        for _ in range(epochs):
            model.train()
            for rows in torch.randperm(len(x)).split(16):
                steps.zero_grad()
                criterion(model(x[rows]), y[rows]).backward()
                steps.step()
            model.eval()
            with torch.no_grad():
                criterion(model(x_val * val_factor), y_val)
            rate.step()
    return watch.report, watch.record
