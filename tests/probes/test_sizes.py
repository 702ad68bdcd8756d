"""Pictures that come in several sizes: what needs rows of one length says so, and nothing fails."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch
from trained import split
from trainwatch.config import Settings

SIZES = {
    "small, then large": (lambda done: 6 + 2 * (done >= 0.5),) * 2,
    "larger in validation": (lambda _: 6, lambda _: 8),
}

TABLES = dict.fromkeys(("labels", "shift", "reference", "learning_curve", "prior"), 10**6)  # at the end alone


@pytest.mark.parametrize(("train", "val"), SIZES.values(), ids=SIZES)
def test_pictures_of_several_sizes(train, val):
    x, xv, y, yv = split("digits", 0)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(32, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    watch = trainwatch.watch(model, optimizer, settings=Settings(quiet=True, strict=True, probes=TABLES))
    epochs = 4
    for epoch in range(epochs):
        for size, inputs, labels, learns in ((train, x, y, True), (val, xv, yv, False)):
            side = size(epoch / epochs)
            for rows in torch.arange(len(inputs)).split(64):
                with torch.set_grad_enabled(learns):
                    pictures = F.interpolate(inputs[rows].reshape(-1, 1, 8, 8), size=(side, side))
                    loss = F.cross_entropy(model(pictures), labels[rows])
                if learns:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
    report = watch.finish()
    assert watch.record.faults == []
    for code in ("TW106", "TW109"):
        assert "samples differ in size: some have 36 numbers and others 64" in report.not_checked[code]
