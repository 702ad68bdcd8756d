"""Norms of parameters that are not plain float32."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch

X, Y = torch.randn(16, 8), torch.randint(0, 3, (16,))


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(8, 3, dtype=torch.cfloat)), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return (x.to(torch.cfloat) @ self.w).abs() + self.b


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Linear(8, 4).bfloat16(), nn.Linear(4, 3).double()
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.high(self.low(x.bfloat16()).double())


CASES = {
    "double": (lambda: nn.Linear(8, 3).double(), X.double()),
    "bfloat16": (lambda: nn.Linear(8, 3).bfloat16(), X.bfloat16()),
    "complex": (Complex, X),
    "mixed-and-unused": (Mixed, X),
    "sparse": (lambda: nn.Sequential(nn.Embedding(20, 4, sparse=True), nn.Flatten(), nn.Linear(12, 3)), None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_norms(case):
    make, inputs = case
    inputs = torch.randint(0, 20, (16, 3)) if inputs is None else inputs
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True})
    expected = []
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), Y).backward()
        gradients = [p.grad for p in model.parameters()]
        absent = [g is None or g.is_sparse for g in gradients]
        expected.append(
            [float("nan") if a else g.abs().double().norm().item() for a, g in zip(absent, gradients, strict=True)]
        )
        optimizer.step()
    watch.finish()
    norms = watch.record.series("grad_norm", "default").values
    assert norms.tolist() == [pytest.approx(row, rel=1e-4, nan_ok=True) for row in expected]
