"""The curvature of a loss: its extreme eigenvalues with bounds, and the step size that they allow.

Plain gradient descent with a rate above 2 / (largest eigenvalue) cannot settle: it overshoots along that direction. A
negative eigenvalue is normal; it says that the loss bends downwards somewhere, too.

Run it: `python examples/hessian_of_your_model.py`.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from trainwatch.probes import hessian_extremes


def loss(model, batch):
    images, classes = batch
    return F.cross_entropy(model(images), classes)


def main():
    torch.manual_seed(0)
    images, classes = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    y = torch.tensor(classes)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(72, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss(model, (x[rows], y[rows])).backward()
            optimizer.step()

    batches = list(zip(x[:1000].split(250), y[:1000].split(250), strict=True))
    found = hessian_extremes(model, loss=loss, batches=batches, k=2)

    state = "converged" if found.converged else f"not converged: {found.reason}"
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {found.products} products ({state})")
    for name, values, bounds in (
        ("largest", found.largest, found.largest_bounds),
        ("most negative", found.smallest, found.smallest_bounds),
    ):
        print(f"{name:14}", ", ".join(f"{v:.4g} +- {b:.1g}" for v, b in zip(values, bounds, strict=True)))
    rate, limit = optimizer.param_groups[0]["lr"], 2 / found.largest[0]
    print(f"learning rate {rate:g}, the limit of gradient descent is 2 / {found.largest[0]:.4g} = {limit:.4g}")
    print("within it" if rate < limit else "beyond it: along that direction each step overshoots")
    return found


if __name__ == "__main__":
    main()
