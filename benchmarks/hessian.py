"""What curvature costs: a product with the Hessian in gradients, products and seconds to its extreme eigenvalues.

    python benchmarks/hessian.py [--rounds 7] [--device cpu] [--only MLP CNN GPT] [--trained 0]

Of one batch (the GPT: 4 x 128 tokens), in evaluation mode. Gradients and products are timed in turn, medians taken. A
question that takes more than `MOST` products is given up and said to be.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from workloads import WORKLOADS

from trainwatch.probes import hessian_extremes
from trainwatch.probes.curvature import Hessian

MOST = 150
MEMORY = {"MLP": 1 << 30, "CNN": 1 << 30, "GPT": 3 << 30}  # half of it for the basis
BATCH = {"GPT": 4}
QUESTIONS: dict[str, dict[str, Any]] = {
    "top 1": {"which": "largest"},
    "top 5": {"which": "largest", "k": 5},
    "most negative": {"which": "smallest"},
    "sign of the least": {"which": "smallest", "stop": lambda ritz: float(ritz.values[0]) < 0},
}


def seconds(call: Callable[[], object], device: str) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    if device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - began


def measure(name: str, rounds: int, device: str, steps: int) -> None:
    """Print what one workload costs."""
    training = WORKLOADS[name](device)
    for _ in range(steps):
        training()
    model = training.model.eval()
    some = slice(0, BATCH.get(name))
    batch = training.inputs[some], training.targets[some]

    def loss(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten())

    parameters = list(model.parameters())
    hessian = Hessian([lambda: loss(model, batch)], parameters, memory=MEMORY[name])
    vector = torch.randn(hessian.size, device=device)
    hessian(vector)
    gradients, products = [], []
    for _ in range(rounds):
        gradients.append(seconds(lambda: torch.autograd.grad(loss(model, batch), parameters), device))
        products.append(seconds(lambda: hessian(vector), device))
    gradient, product = statistics.median(gradients), statistics.median(products)
    print(f"\n{name}: {hessian.size:,} parameters, a gradient {1e3 * gradient:.1f} ms, {steps} steps trained")
    print(f"  a product on a kept graph: {product / gradient:.2f} gradients")
    hessian.release()
    for question, how in QUESTIONS.items():
        began = time.perf_counter()
        found = hessian_extremes(
            model, loss=loss, batches=[batch], max_products=MOST, memory=MEMORY[name], **({"tolerance": 1e-3} | how)
        )
        took = time.perf_counter() - began
        values = found.largest or found.smallest
        unsure = "" if found.converged or "stop" in how else f", not converged (bound {found.smallest_bounds[0]:.1e})"
        print(f"  {question:18} {found.products:4} products {took:7.2f} s  {values[-1]:.4g}{unsure}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--trained", type=int, default=0, help="steps of training before")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}")
    for name in options.only:
        torch.manual_seed(0)
        measure(name, options.rounds, options.device, options.trained)


if __name__ == "__main__":
    main()
