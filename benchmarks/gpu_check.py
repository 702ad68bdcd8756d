"""Whether watching holds on a GPU, in one table: python benchmarks/gpu_check.py [--device cuda] [--rounds 15] [--quick]

For the workloads of `benchmarks/overhead.py`, in single precision, under autocast to bfloat16, and to float16 with a
`GradScaler`, compiled and not:

- *waits*: plain steps run with `torch.cuda.set_sync_debug_mode("error")`, so that any wait for the device raises;
- *ratio*: time of a watched step over that of an unwatched one, by events on the device, blocks interleaved in random
  order, medians; *noise*: the same of two unwatched ones;
- *norm*: relative error of the last recorded norms against those of the same gradients in double precision.

Then all probes on the device, the Hessian there, and DDP where there are two GPUs. Without a GPU the same runs on the
CPU, but for what needs one. Exits with 1 where anything waits, faults or is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from workloads import WORKLOADS, Training

import trainwatch
from trainwatch.probes import hessian_extremes

PRECISIONS = ("fp32", "bf16", "fp16 scaled")
BLOCK = {"cuda": 20, "cpu": 2}
FLUSH = 10_000  # steps: plain ones lie between two flushes
NORM_ERROR = 1e-3  # fused norms in single precision against double


class Stepper:
    """Steps of a workload in some precision."""

    def __init__(self, training: Training, precision: str, device: str, compiled: bool) -> None:
        self.training, self.device = training, device
        self.model: Callable[..., Any] = torch.compile(training.model) if compiled else training.model
        self.lower = {"bf16": torch.bfloat16, "fp16 scaled": torch.float16}.get(precision)
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "fp16 scaled")

    def __call__(self) -> None:
        optimizer = self.training.optimizer
        optimizer.zero_grad()
        lower = torch.autocast(self.device, self.lower) if self.lower else contextlib.nullcontext()
        with lower:
            logits = self.model(self.training.inputs)
            loss = nn.functional.cross_entropy(logits.flatten(0, -2), self.training.targets.flatten())
        self.scaler.scale(loss).backward()
        self.scaler.step(optimizer)
        self.scaler.update()

    def seconds(self, steps: int) -> float:
        """Seconds that some steps take on the device."""
        if self.device != "cuda":
            began = time.perf_counter()
            for _ in range(steps):
                self()
            return time.perf_counter() - began
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(steps):
            self()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3


@contextlib.contextmanager
def no_wait(device: str) -> Iterator[None]:
    """Within, a wait for the device raises."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def waits(step: Stepper) -> str:
    """Whether plain steps wait for the device; the scaler's own step does, and is left out."""
    if step.device != "cuda" or step.scaler.is_enabled():
        return "-"
    try:
        with no_wait(step.device):
            for _ in range(12):
                step()
    except RuntimeError as error:
        return f"waits: {error}"
    return "no"


def norm_error(step: Stepper, watch: trainwatch.Watch) -> float:
    """Relative error of the norms of the last step, against its gradients in double precision."""
    watch._monitor.capture.flush(last=True)
    recorded = watch.record.latest("grad_norm", "default")
    assert recorded is not None
    true = [float(p.grad.double().norm()) for p in step.training.model.parameters() if p.grad is not None]
    return max(abs(float(a) - b) / max(b, 1e-12) for a, b in zip(recorded[1], true, strict=True))


def row(name: str, precision: str, compiled: bool, device: str, rounds: int) -> tuple[list[str], bool]:
    """One row of the table, and whether all is well."""
    torch.manual_seed(0)
    steppers = {
        label: Stepper(WORKLOADS[name](device), precision, device, compiled) for label in ("plain", "again", "watched")
    }
    for step in steppers.values():
        step.seconds(3)
    watched = steppers["watched"]
    settings = {"quiet": True, "flush_every": FLUSH, "probes": "off", "nonfinite": "off"}
    watch = trainwatch.watch(watched.training.model, watched.training.optimizer, settings=settings)
    watched.seconds(9)  # ranges are measured at steps 0, 1, 3, 7 ...
    waited = waits(watched)
    blocks: dict[str, list[float]] = {label: [] for label in steppers}
    for _ in range(rounds):
        for label in random.sample(list(steppers), 3):
            blocks[label].append(steppers[label].seconds(BLOCK[device]))
    error = norm_error(watched, watch)
    report = watch.finish()
    ratio, noise = (
        statistics.median(b / p for b, p in zip(blocks[label], blocks["plain"], strict=True))
        for label in ("watched", "again")
    )
    faults = [d.summary for d in report.diagnoses if d.code == "TW000"]
    well = waited in ("-", "no") and error < NORM_ERROR and not faults
    ms = 1e3 * statistics.median(blocks["plain"]) / BLOCK[device]
    cells = [name, precision, "yes" if compiled else "no", f"{ms:.2f}", f"{ratio:.3f}", f"{noise:.3f}", waited,
             f"{error:.1e}", "; ".join(faults)]  # fmt: skip
    return cells, well


def probes(device: str) -> str:
    """All probes on the device: which ran, and what failed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3)).to(
        device
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, y = torch.randn(640, 20, device=device), torch.randint(0, 3, (640,), device=device)
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "probes": "all", "overhead": 0.9})
    for _ in range(8):
        for rows in torch.randperm(512, device=device).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for rows in torch.arange(512, 640, device=device).split(32):
                nn.functional.cross_entropy(model(x[rows]), y[rows])
        model.train()
    report = watch.finish()
    ran = sorted(part.removeprefix("probe ") for part in report.overhead["seconds"] if part.startswith("probe "))
    faults = [d.summary for d in report.diagnoses if d.code == "TW000"]
    return "; ".join(faults) or f"{len(ran)} probes ran: {', '.join(ran)}"


def _loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def hessian(device: str) -> str:
    """Extreme eigenvalues on the device against those on the CPU."""
    found = []
    for where in ("cpu", device):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 3)).to(where)
        x, y = torch.randn(64, 10).to(where), (torch.arange(64) % 3).to(where)
        extremes = hessian_extremes(model, loss=_loss, batches=[(x, y)])
        found.append((float(extremes.largest[0]), float(extremes.smallest[0])))
    return f"largest and smallest {found[1]}, on the CPU {found[0]}"


def ddp(rank: int, world: int, file: str) -> None:
    """One of two processes on two GPUs; the first prints what was recorded."""
    torch.distributed.init_process_group("nccl", init_method=f"file://{file}", rank=rank, world_size=world)
    device = f"cuda:{rank}"
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(20, 3).to(device), device_ids=[rank])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "flush_every": 10})
    for _ in range(40):
        optimizer.zero_grad()
        x = torch.randn(16, 20, device=device)
        nn.functional.cross_entropy(model(x), torch.arange(16, device=device) % 3).backward()
        optimizer.step()
    report = watch.finish()
    if rank == 0:
        print(f"DDP on two GPUs: {report.facts['run']['steps']} steps, {report.facts.get('processes')}")
    torch.distributed.destroy_process_group()


def main() -> int:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cuda", "cpu"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="the small workload, uncompiled")
    chosen = parser.parse_args()
    device = chosen.device
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    columns = ("workload", "precision", "compiled", "step, ms", "ratio", "noise", "waits", "norm", "faults")
    table = Table(*columns, title=f"{card}, torch {torch.__version__}")
    well = True
    for name in list(WORKLOADS)[: 1 if chosen.quick else None]:
        for precision in PRECISIONS[: 3 if device == "cuda" else 2]:  # autocast to float16 is for GPUs
            for compiled in (False,) if chosen.quick else (False, True):
                cells, fine = row(name, precision, compiled, device, chosen.rounds)
                table.add_row(*cells)
                well = well and fine
    console = Console(width=160)
    console.print(table)
    told = probes(device)
    well = well and "failed" not in told
    console.print(f"Probes: {told}", f"Hessian: {hessian(device)}", sep="\n", highlight=False)
    if device == "cuda" and torch.cuda.device_count() > 1:
        with tempfile.TemporaryDirectory() as directory:
            torch.multiprocessing.spawn(ddp, (2, f"{directory}/meet"), 2)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
