"""Saddle points: two trainings that stand still, the diagnosis, and `trainwatch.escape`, after which they go on.

Run it: `python examples/saddle.py`.
"""

import torch
from sklearn.datasets import load_diabetes
from torch import nn

import trainwatch


class Ridge(nn.Module):
    """x^2 - y^2, held from below by y^4 / 4. At y = 0 the gradient leads along the ridge, down to x = 0, and ends."""

    def __init__(self):
        super().__init__()
        self.x, self.y = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor(0.0))

    def forward(self, steepness):  # of each sample
        return self.x**2 - steepness * self.y**2 + self.y**4 / 4


def ridge():
    return Ridge(), 1 + 0.1 * torch.randn(160), torch.full((160,), -2.0), nn.L1Loss(), 0.05


def deep_linear():
    """Layers that begin near zero: the gradient of each is multiplied by the smallness of the others."""
    x, y = (torch.tensor((part - part.mean(0)) / part.std(0)).float() for part in load_diabetes(return_X_y=True))
    layers = [nn.Linear(inputs, outputs, bias=False) for inputs, outputs in ((10, 8), (8, 8), (8, 1))]
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.035)
    return nn.Sequential(*layers, nn.Flatten(0)), x, y, nn.MSELoss(), 0.005


def main():
    torch.manual_seed(0)
    settings = {"ignore": {"TW706": "linear on purpose"}}
    for model, x, y, criterion, lr in (ridge(), deep_linear()):
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)

        def train(epochs, model=model, x=x, y=y, criterion=criterion, optimizer=optimizer):
            for _ in range(epochs):
                for rows in torch.randperm(len(x)).split(32):
                    optimizer.zero_grad()
                    criterion(model(x[rows]), y[rows]).backward()
                    optimizer.step()
            return f"loss {criterion(model(x), y):.3f}"

        watch = trainwatch.watch(model, optimizer, settings=settings)
        print(train(epochs=20))
        report = watch.finish()  # prints what was found

        with trainwatch.watch(model, optimizer, settings={**settings, "quiet": True}) as watch:
            print(train(epochs=3), "before", trainwatch.escape(watch))
            print(train(epochs=10), "ten epochs later\n")
    return report


if __name__ == "__main__":
    main()
