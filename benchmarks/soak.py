"""A long run of small steps: memory, size of the record and cost of watching stay as they were.

    python benchmarks/soak.py [--steps 200000] [--rows 10]

Trains a net of two layers and validates it every 2,000 steps. After each tenth of the steps a row is printed: resident
memory, size of the record on disk, time inside trainwatch per step since the row before, steps a second. A short run to
its end comes first, since what experiments import stays. The growth told at the end is that of memory since the second
row. Exits with 1 where it is 5 MB or more.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import trainwatch

MOST_GROWTH = 5.0  # MB
VALIDATE_EVERY = 2000
MB = 1e6


def resident() -> float:
    """Resident memory of this process in MB."""
    gc.collect()
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return float(fields["VmRSS"].split()[0]) * 1024 / MB


def size(directory: Path) -> float:
    """Size of all files in a directory, in MB."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) / MB


def train(directory: Path, steps: int, rows: int, table: Table) -> list[float]:
    """Train, add the rows to the table, and give back the memory at each."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    x = torch.randn(4096, 16)
    y = (x[:, :4] + 0.5 * torch.randn(4096, 4)).argmax(1)
    memory, spent, part = [], 0.0, steps // rows
    watch = trainwatch.watch(model, optimizer, log_dir=directory, settings={"quiet": True, "strict": True})
    began = time.perf_counter()
    for step in range(1, steps + 1):
        batch = torch.randint(0, 3072, (16,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        if step % VALIDATE_EVERY == 0:
            model.eval()
            with torch.no_grad():
                for some in torch.arange(3072, 4096).split(256):
                    nn.functional.cross_entropy(model(x[some]), y[some])
            model.train()
        if step % part == 0:
            now = time.perf_counter()
            inside = sum(watch._monitor.containment.seconds.values())
            memory.append(resident())
            each, rate = 1e6 * (inside - spent) / part, part / (now - began)
            table.add_row(f"{step:,}", f"{memory[-1]:.1f}", f"{size(directory):.2f}", f"{each:.0f}", f"{rate:,.0f}")
            spent, began = inside, now
    watch.finish()
    return memory


def main() -> int:
    """Train, print the rows, and say whether memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--rows", type=int, default=10)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        train(Path(directory), 5 * VALIDATE_EVERY, 1, Table())
    table = Table("steps", "memory, MB", "record, MB", "watching, us a step", "steps a second")
    with tempfile.TemporaryDirectory() as directory:
        memory = train(Path(directory), chosen.steps, chosen.rows, table)
    Console().print(table)
    growth = max(memory[1:]) - memory[1]
    print(f"memory grew by {growth:.1f} MB after the second row; at most {MOST_GROWTH:g} is allowed")
    return growth >= MOST_GROWTH


if __name__ == "__main__":
    sys.exit(main())
