"""What watching costs: self time, ratio of step times, added operations and host reads, beside a bare norm pass.

    python benchmarks/overhead.py [--rounds 15] [--device cpu] [--only MLP CNN GPT] [--whole-run 75]

Every set-up is its own instance in one process; all of them run one block a round, in random order, and a ratio is
taken to the mean of the two unwatched blocks of its round. Below 5 % a ratio of step times resolves nothing on a noisy
machine: the second unwatched set-up shows how much. *Self time* is the time inside trainwatch's own code, as it
measures it itself, over the rest of the step; looks of the rule engine, flushes and validation included.

``--whole-run`` asks for another thing: what a run of so many seconds spends on being watched from its first step to
its last one, as its report says it. Where steps are short, most of a long run goes by unwatched.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from workloads import WORKLOADS, Training

import trainwatch

BLOCK = {"MLP": 100, "CNN": 2, "GPT": 1}  # steps a block


class Counter(TorchDispatchMode):
    """Counts dispatched operations and, among them, reads of a scalar by the host."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        self.reads += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


def norm_pass(training: Training, kept: list[torch.Tensor]) -> None:
    """The floor: the norms of all gradients in one fused pass, stacked, kept in memory."""
    kept.append(torch.stack(torch._foreach_norm([p.grad for p in training.model.parameters()])))
    del kept[:-50]


def seconds(training: Callable[[], None], steps: int, device: str) -> float:
    """Seconds that some steps take."""
    began = time.perf_counter()
    for _ in range(steps):
        training()
    if device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - began


def counts(training: Training) -> tuple[int, int]:
    """Dispatched operations and host reads of one step."""
    with Counter() as counter:
        training()
    return counter.operations, counter.reads


def measure(name: str, rounds: int, device: str) -> None:
    """Print the rows of one workload."""
    make = WORKLOADS[name]
    trainings = {label: make(device) for label in ("unwatched", "unwatched again", "bare norm pass", "trainwatch")}
    kept: list[torch.Tensor] = []
    floor = trainings["bare norm pass"]
    floor.after_backward = lambda: norm_pass(floor, kept)
    watched = trainings["trainwatch"]
    blocks: dict[str, list[float]] = {label: [] for label in trainings}
    steps = BLOCK[name]
    for training in trainings.values():
        seconds(training, max(2, steps // 4), device)
    plain = counts(trainings["unwatched"])
    watch = trainwatch.watch(watched.model, watched.optimizer, settings={"quiet": True})
    seconds(watched, 5, device)  # ranges are measured at steps 0, 1, 3, 7 ...: the next step is a plain one
    ours = counts(watched)
    spent = watch._monitor.containment.seconds
    self_times: list[float] = []
    norm_times: list[float] = []
    order = list(trainings)
    for _ in range(rounds):
        random.shuffle(order)
        for label in order:
            before = sum(spent.values())
            blocks[label].append(seconds(trainings[label], steps, device))
            if label == "trainwatch":
                self_times.append((sum(spent.values()) - before) / steps)
        began = time.perf_counter()
        for _ in range(steps):
            norm_pass(floor, kept)
        norm_times.append((time.perf_counter() - began) / steps)
    watch.finish()
    base = [(a + b) / 2 for a, b in zip(blocks["unwatched"], blocks["unwatched again"], strict=True)]
    step = statistics.median(base) / steps
    parameters = sum(p.numel() for p in watched.model.parameters())
    tensors = len(list(watched.model.parameters()))
    print(f"\n{name}: {parameters:,} parameters in {tensors} tensors, step {1e3 * step:.2f} ms")
    for label in trainings:
        ratio = statistics.median(b / u for b, u in zip(blocks[label], base, strict=True))
        own = {"trainwatch": self_times, "bare norm pass": norm_times}.get(label)
        share = ""
        if own is not None:
            own_step = statistics.median(own)
            rest = step if label == "bare norm pass" else statistics.median(blocks[label]) / steps - own_step
            share = f"  self time {1e6 * own_step:7.1f} us a step ({100 * own_step / rest:.2f} %)"
        print(f"  {label:16} x {ratio:.3f}{share}")
    print(f"  added to a plain step: {ours[0] - plain[0]} operations, {ours[1] - plain[1]} host reads")


def whole_run(name: str, length: float, device: str) -> None:
    """Print what a run of so many seconds spent on being watched."""
    training = WORKLOADS[name](device)
    watch = trainwatch.watch(training.model, training.optimizer, settings={"quiet": True})
    end = time.perf_counter() + length
    steps = 0
    while time.perf_counter() < end:
        training()
        steps += 1
    found = watch.finish().overhead
    print(f"\n{name}: {steps:,} steps in {found['run_seconds']:.0f} s")
    print(f"  self time {found['per_step_us']:.1f} us a step ({100 * found['share']:.2f} %)")
    print("\n".join(f"  {line}" for line in found["skipped"]))


def import_seconds(module: str) -> float:
    """Median seconds that importing a module takes, beside an empty interpreter."""

    def once(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    return statistics.median(once(f"import {module}") - once("pass") for _ in range(7))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--whole-run", type=float, metavar="SECONDS")
    options = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rounds} rounds, {options.device}")
    if options.whole_run:
        for name in options.only:
            whole_run(name, options.whole_run, options.device)
        return
    for module in ("trainwatch", "torch"):
        print(f"import {module}: {1e3 * import_seconds(module):.0f} ms")
    for name in options.only:
        measure(name, options.rounds, options.device)


if __name__ == "__main__":
    main()
