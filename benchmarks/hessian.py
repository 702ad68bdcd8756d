"""What curvature costs: a product with the Hessian in gradients, products and seconds to its extreme eigenvalues.

    python benchmarks/hessian.py [--rounds 7] [--device cpu] [--only MLP CNN GPT] [--trained 0] [--samples N]
                                 [--peers]

Of one batch (the GPT: 4 x 128 tokens), in evaluation mode. Gradients and products are timed in turn, medians taken. A
question that takes more than `MOST` products is given up and said to be. With `--peers` other packages answer the same
questions in turn with ours; `hessian_peers.py` says what it takes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from workloads import WORKLOADS

from trainwatch.probes import hessian_extremes
from trainwatch.probes.curvature import Hessian

MOST = 150
MEMORY = {"MLP": 1 << 30, "CNN": 1 << 30, "GPT": 3 << 30}  # half of it for the basis
BATCH = {"GPT": 4}
PEER_QUESTIONS = {"top 1": (1, 0), "top 5": (5, 0), "most negative": (0, 1), "all in one run": (5, 1)}
T = TypeVar("T")
Batch = tuple[torch.Tensor, torch.Tensor]
QUESTIONS: dict[str, dict[str, Any]] = {
    "top 1": {"largest": 1},
    "top 5": {"largest": 5},
    "most negative": {"smallest": 1},
    "all in one run": {"largest": 5, "smallest": 1},
    "sign of the least": {"smallest": 1, "stop": lambda ritz: float(ritz.values[0]) < 0},
}


def timed(call: Callable[[], T], device: str) -> tuple[float, T]:
    """Seconds of a call (on a CPU the processor's own, which other programs disturb least), and what it returns."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    found = call()
    if device != "cpu":
        torch.accelerator.synchronize()
    return clock() - began, found


def prepared(name: str, device: str, steps: int, samples: int | None) -> tuple[torch.nn.Module, Batch]:
    """The model of a workload after some steps of training, and a batch."""
    training = WORKLOADS[name](device)
    for _ in range(steps):
        training()
    some = slice(0, samples or BATCH.get(name))
    return training.model.eval(), (training.inputs[some], training.targets[some])


def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten())


def measure(name: str, rounds: int, device: str, steps: int, samples: int | None) -> None:
    """Print what one workload costs."""
    model, batch = prepared(name, device, steps, samples)
    parameters = list(model.parameters())
    hessian = Hessian([lambda: loss(model, batch)], parameters, memory=MEMORY[name])
    vector = torch.randn(hessian.size, device=device)
    hessian(vector)
    gradients, products = [], []
    for _ in range(rounds):
        gradients.append(timed(lambda: torch.autograd.grad(loss(model, batch), parameters), device)[0])
        products.append(timed(lambda: hessian(vector), device)[0])
    gradient, product = statistics.median(gradients), statistics.median(products)
    print(f"\n{name}: {hessian.size:,} parameters, a gradient {1e3 * gradient:.1f} ms, {steps} steps trained")
    print(f"  a product on a kept graph: {product / gradient:.2f} gradients")
    hessian.release()
    for question, how in QUESTIONS.items():
        settings = {"tolerance": 1e-3, "max_products": MOST, "memory": MEMORY[name]} | how
        took, found = timed(partial(hessian_extremes, model, loss=loss, batches=[batch], **settings), device)
        values, bound = found.largest or found.smallest, max(found.largest_bounds + found.smallest_bounds)
        unsure = "" if found.converged or "stop" in how else f", not converged (bound {bound:.1e})"
        print(f"  {question:18} {found.products:4} products {took:7.2f} s  {values[-1]:.4g}{unsure}")


def beside_peers(name: str, rounds: int, steps: int, samples: int | None) -> None:
    """Print what one workload takes us and other packages."""
    from hessian_peers import Task, compare, ways

    model, (inputs, targets) = prepared(name, "cpu", steps, samples)
    task = Task(torch.nn.Sequential(model, torch.nn.Flatten(0, -2)), inputs, targets.flatten())
    parameters = list(model.parameters())
    hessian = Hessian([lambda: task.loss(task.model, (inputs, task.targets))], parameters, memory=MEMORY[name])
    ends = hessian_extremes(task.model, loss=task.loss, batches=[(inputs, task.targets)])
    radius = max(ends.largest[0], -ends.smallest[0])

    def residual(value: float, vector: torch.Tensor) -> float:
        return float((hessian(vector) - value * vector).norm() / vector.norm()) / radius

    print(f"\n{name}: {hessian.size:,} parameters, {steps} steps trained, {rounds} rounds, seconds of the processor")
    for question, wanted in PEER_QUESTIONS.items():
        with sdpa_kernel(SDPBackend.MATH):  # other kernels of attention have no second derivative
            found = compare(task, ways(), wanted, residual, rounds)
        for package, (took, there) in found.items():
            print(f"  {question:16}{package:32}{took:8.3f} s{'' if there else '  not converged'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--trained", type=int, default=0, help="steps of training before")
    parser.add_argument("--samples", type=int, help="of the batch that are taken; all by default, of the GPT 4")
    parser.add_argument("--peers", action="store_true", help="beside other packages, in an environment that has them")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}")
    for name in options.only:
        torch.manual_seed(0)
        if options.peers:
            beside_peers(name, options.rounds, options.trained, options.samples)
        else:
            measure(name, options.rounds, options.device, options.trained, options.samples)


if __name__ == "__main__":
    main()
