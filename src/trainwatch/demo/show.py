"""A demo in a terminal: what is planted, the training, what is found as it goes on, the report and its files."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from trainwatch.demo import Fault
from trainwatch.demo.training import Epoch, Setup, train
from trainwatch.diagnosis import Diagnosis
from trainwatch.report import Report
from trainwatch.reports.notice import notice

PROGRESS = (
    "epoch {task.completed}/{task.total}",
    "loss {task.fields[epoch].train_loss:.3f}, validation {task.fields[epoch].val_loss:.3f}",
    "accuracy {task.fields[epoch].val_accuracy:.0%}",
)


def show(fault: Fault, seed: int, log_dir: Path, console: Console | None = None) -> Report:
    """Run a demo and print it.

    Args:
        fault: What is planted.
        seed: Seed of data, weights and order.
        log_dir: Where the record and the report go.
        console: Where to print; standard output by default.
    """
    console = console or Console()
    torch.set_num_threads(1)  # nets this small only lose by more
    setup: Setup = importlib.import_module(f"trainwatch.demo.{fault.value}").setup(seed)
    console.print(f"Planted: {setup.planted}.\nData: {setup.data.source}.\n", highlight=False)
    with Progress(BarColumn(20), *map(TextColumn, PROGRESS), console=console) as progress:
        nan = float("nan")
        bar = progress.add_task("training", total=setup.epochs, epoch=Epoch(0, nan, nan, nan))

        def on_epoch(epoch: Epoch) -> None:
            progress.update(bar, completed=epoch.number + 1, epoch=epoch)

        def on_finding(diagnosis: Diagnosis) -> None:
            line = notice(diagnosis, diagnosis.reported_step or 0)
            progress.console.print(line, markup=False, highlight=False)

        report = train(setup, seed, log_dir, on_epoch, on_finding)
    console.print()
    report.print()
    for line in (
        f"\nFiles: {', '.join(str(path) for path in sorted(log_dir.rglob('report.*')))}",
        f"Again: trainwatch diagnose {log_dir}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return report
