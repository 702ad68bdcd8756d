"""How sharply the loss is curved for the steps of the optimiser in use, against what they can bear (§9, §13)."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from trainwatch.probes.bench import Batch, Bench
from trainwatch.probes.curvature import Hessian
from trainwatch.probes.hessian import spectrum_ends
from trainwatch.probes.lanczos import Ritz
from trainwatch.probes.stability import Steps, steps_of

KIND = "sharpness"
QUANTITIES = ("sharpness",)
STEPS = 150  # some 12 products of each batch, each worth two gradients or three
MANY = 6  # batches
PRODUCTS = 20
VECTORS = 24  # of the basis, where memory allows
WORKING = 6  # vectors at work besides: gradients, the factors of each parameter, products
NEAR = 0.05  # bound that will do, as a share of the value


def measure(bench: Bench) -> None:
    """Record the largest eigenvalue of rate times preconditioned Hessian, and where the optimiser becomes unstable.

    On a copy in evaluation mode, so that the loss is a function of the weights alone: no dropout, and batch norm by its
    running statistics. A row of `sharpness` is (eigenvalue, its bound, the value beyond which steps grow along the
    eigenvector on a quadratic, products, highest rate).
    """
    batches = bench.batches("train", MANY)
    with bench.learner(training=False, further=WORKING) as (model, optimizer):
        steps = steps_of(optimizer)
        losses = [partial(_backpropagated, batch, model, bench.loss_factor(batch)) for batch in batches]
        hessian = Stepped(losses, steps, memory=bench.memory // 2)
        room = bench.memory // 2 // max(1, hessian.size * hessian.factors.element_size())
        found, *_ = spectrum_ends(
            hessian, known, smallest=0, largest=1, most_vectors=max(3, min(VECTORS, room)), most_products=PRODUCTS
        )
    row = (float(found.values[-1]), float(found.bounds[-1]), steps.threshold, hessian.products, steps.rate)
    bench.record.append("sharpness", "held", bench.step, row, {"method": hessian.method})


class Stepped(Hessian):
    """A Hessian H in the units of an optimiser's steps: D^1/2 H D^1/2, where D is what a step multiplies gradients by.

    Its eigenvalues are those of D H, and free of any unit: neither the size of the loss nor that of the weights matters
    where the optimiser makes up for it.
    """

    def __init__(self, losses: list[partial[torch.Tensor]], steps: Steps, *, memory: int) -> None:
        super().__init__(losses, steps.parameters, memory=memory)
        self.factors = torch.cat([f.reshape(-1).to(self.dtype) for f in steps.factors]).sqrt()

    def __call__(self, vector: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        return super().__call__(self.factors * vector, out).mul_(self.factors)


def known(ritz: Ritz) -> bool:
    """The largest eigenvalue is known well enough to be compared."""
    return ritz.complete or float(ritz.bounds[-1]) <= NEAR * abs(float(ritz.values[-1]))


def _backpropagated(batch: Batch, model: nn.Module, factor: float) -> torch.Tensor:
    return factor * batch.loss(model).mean()
