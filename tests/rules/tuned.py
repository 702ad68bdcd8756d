"""Small real fine-tunings: nets that were trained on half of the digits' classes move on to the other half."""

import copy
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import nn

import trainwatch
from trainwatch.config import Settings

HALF = 5  # classes


@cache
def digits():
    """Images in -1..1, shape (n, 1, 8, 8), and their classes."""
    images, classes = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1, torch.tensor(classes)


def split(seed, first=False, train=300, images=None):
    """Training and validation inputs and classes of the first or the second half of the classes."""
    x, y = digits()
    x = x if images is None else images
    rows = torch.nonzero((y < HALF) if first else (y >= HALF)).flatten()
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    y = y if first else y - HALF
    return x[rows[:train]], y[rows[:train]], x[rows[train:]], y[rows[train:]]


def conv_net(width=16):
    """Two convolutions with batch norm, and a head."""
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, HALF)),
    )


def mlp(width=64, depth=3):
    """Fully connected layers and a head."""
    layers, wide = [nn.Flatten()], 64
    for _ in range(depth):
        layers += [nn.Linear(wide, width), nn.ReLU()]
        wide = width
    return nn.Sequential(*layers, nn.Linear(width, HALF))


def parity(seed, train=60, wrong=0.2):
    """As `split`, of all digits: odd or even, images that `pretrained(knows=10)` has not seen; some wrong labels."""
    x, y = digits()
    rows, y = _shuffled(seed)[900:], y % 2
    draw = torch.Generator().manual_seed(seed)
    labels = y[rows[:train]]
    labels = torch.where(torch.rand(train, generator=draw) < wrong, 1 - labels, labels)
    return x[rows[:train]], labels, x[rows[train:]], y[rows[train:]]


def _shuffled(seed):
    return torch.randperm(len(digits()[0]), generator=torch.Generator().manual_seed(seed))


@cache
def _trained(make, seed, epochs, knows):
    torch.manual_seed(seed)
    model, (x, y, *_) = make(), split(seed, first=True, train=900)
    if knows == 10:
        x, y = (part[_shuffled(seed)[:900]] for part in digits())
        model[-1] = nn.Linear(model[-1].in_features, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        schedule.step()
    return model


def pretrained(make=conv_net, seed=0, epochs=8, knows=HALF):
    """A net that knows the digits 0 to 4 or all of them, with a new head."""
    torch.set_num_threads(1)
    model = copy.deepcopy(_trained(make, seed, epochs, knows))
    torch.manual_seed(seed)
    model[-1] = nn.Linear(model[-1].in_features, HALF)
    return model


def tune(model, seed=0, *, parts=None, optimizer=None, epochs=6, prepare=lambda model: None, after=None, **settings):
    """Train on the other digits and give back (report, record).

    Args:
        parts: As `split` gives them; without validation samples there is no validation.
        optimizer: Made of the parameters that are trained, unless it is given.
        prepare: Called with the model after each `model.train()`.
        after: Called with the epoch after each of them.
    """
    x, y, xv, yv = split(seed) if parts is None else parts
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=3e-3) if optimizer is None else optimizer
    settings = Settings(**{"quiet": True, "strict": True, "probes": "off", **settings})
    torch.manual_seed(seed)
    with trainwatch.watch(model, optimizer, settings=settings) as watch:
        for epoch in range(epochs):
            model.train()
            prepare(model)
            for rows in torch.randperm(len(x)).split(32):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
            if len(xv):
                model.eval()
                with torch.no_grad():
                    nn.functional.cross_entropy(model(xv), yv)
            if after is not None:
                after(epoch)
    return watch.report, watch.record
