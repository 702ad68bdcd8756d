"""A long run of small steps: memory, size of the record and cost of watching stay as they were.

    python benchmarks/soak.py [--steps 200000] [--rows 10]

Trains a net of two layers and validates it every 2,000 steps. After each tenth of the steps a row is printed: resident
memory, size of the record on disk, time inside trainwatch per step since the row before, steps a second. The growth
told at the end is that of memory since the second row: until then probes of all kinds have run for the first time, and
what they import stays. Exits with 1 where it is 5 MB or more.
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


def main() -> int:
    """Train, print the rows, and say whether memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--rows", type=int, default=10)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    x = torch.randn(4096, 16)
    y = (x[:, :4] + 0.5 * torch.randn(4096, 4)).argmax(1)
    table = Table("steps", "memory, MB", "record, MB", "watching, us a step", "steps a second")
    memory, spent = [], 0.0
    with tempfile.TemporaryDirectory() as directory:
        watch = trainwatch.watch(model, optimizer, log_dir=directory, settings={"quiet": True, "strict": True})
        began = time.perf_counter()
        for step in range(1, chosen.steps + 1):
            rows = torch.randint(0, 3072, (16,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            if step % VALIDATE_EVERY == 0:
                model.eval()
                with torch.no_grad():
                    for some in torch.arange(3072, 4096).split(256):
                        nn.functional.cross_entropy(model(x[some]), y[some])
                model.train()
            if step % (chosen.steps // chosen.rows) == 0:
                now = time.perf_counter()
                inside = sum(watch._monitor.containment.seconds.values())
                memory.append(resident())
                each = 1e6 * (inside - spent) / (chosen.steps // chosen.rows)
                rate = (chosen.steps // chosen.rows) / (now - began)
                table.add_row(
                    f"{step:,}", f"{memory[-1]:.1f}", f"{size(Path(directory)):.2f}", f"{each:.0f}", f"{rate:,.0f}"
                )
                spent, began = inside, now
        watch.finish()
    Console().print(table)
    growth = max(memory[1:]) - memory[1]
    print(f"memory grew by {growth:.1f} MB after the second row; at most {MOST_GROWTH:g} is allowed")
    return growth >= MOST_GROWTH


if __name__ == "__main__":
    sys.exit(main())
