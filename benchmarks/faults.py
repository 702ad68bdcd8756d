"""What becomes of a training in which trainwatch fails: every method of it, several exceptions, every phase of a run.

    python benchmarks/faults.py [--every 1] [--only capture.losses]

A small net is trained once unwatched. Then, for each public method of the parts that work while a run goes on, for
each exception, and for each phase (before the first step, while training, in validation, at the end) in which it is
called, the run is repeated with that method raising that exception whenever it is called in that phase. The training
must end with the same weights, the same state of the optimiser and the same random numbers, and give a report. Prints
a table of the parts, and every cell in which the training was harmed; exits with 1 if there is any.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import inspect
import itertools
import pkgutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import trainwatch
import trainwatch.capture
import trainwatch.probes
from trainwatch.containment import contained

PHASES = ("start", "training", "validation", "end")
EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "RuntimeError": lambda: RuntimeError("planted"),
    "OutOfMemory": lambda: torch.OutOfMemoryError("planted"),
    "disk full": lambda: OSError(errno.ENOSPC, "planted"),
    "KeyError": lambda: KeyError("planted"),
}
FURTHER = ("record.segments", "record.run_record", "report", "outlets", "live", "tensorboard.writer")
EPOCHS, STEPS = 3, 6

phase = "start"


def sites(only: str) -> Iterator[tuple[str, type, str]]:
    """Public methods of the classes that work while a run goes on: module, class, name."""
    names = [f"capture.{m.name}" for m in pkgutil.iter_modules(trainwatch.capture.__path__)]
    names += [f"probes.{m.name}" for m in pkgutil.iter_modules(trainwatch.probes.__path__)]
    for name in (*names, *FURTHER):
        module = importlib.import_module(f"trainwatch.{name}")
        for owner in vars(module).values():
            if inspect.isclass(owner) and owner.__module__ == module.__name__ and name.startswith(only):
                for method, function in vars(owner).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield name, owner, method


def train(directory: Path | None) -> tuple[list[torch.Tensor], trainwatch.Report | None]:
    """One run; its weights, optimiser state and random numbers, and the report."""
    global phase
    torch.manual_seed(0)
    phase = "start"
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, y = torch.randn(16 * STEPS, 6), torch.arange(16 * STEPS) % 3
    settings = {"quiet": True, "flush_every": 5, "probes": {"activations": 1, "train_eval": 1}}
    watch = None if directory is None else trainwatch.watch(model, optimizer, log_dir=directory, settings=settings)
    for _ in range(EPOCHS):
        phase = "training"
        model.train()
        for batch in torch.randperm(len(x)).split(16):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        phase = "validation"
        model.eval()
        with torch.no_grad():
            for some in torch.arange(len(x)).split(48):
                nn.functional.cross_entropy(model(x[some]), y[some])
        if watch is not None:
            watch.epoch_end(accuracy=0.5)
    state = [*model.state_dict().values(), *(t for s in optimizer.state.values() for t in s.values())]
    state = [t.clone() for t in state]
    phase = "end"
    report = None if watch is None else watch.finish()
    return [*state, torch.get_rng_state()], report


def called() -> set[tuple[type, str, str]]:
    """Which method is called in which phase, by one run in which none fails."""
    noted: set[tuple[type, str, str]] = set()
    originals = [(owner, method, owner.__dict__[method]) for _, owner, method in sites("")]
    for owner, method, original in originals:

        def noting(
            *args: Any,
            owner: type = owner,
            method: str = method,
            original: Callable[..., Any] = original,
            **kwargs: Any,
        ) -> Any:
            noted.add((owner, method, phase))
            return original(*args, **kwargs)

        setattr(owner, method, noting)
    try:
        with tempfile.TemporaryDirectory() as directory:
            train(Path(directory))
    finally:
        for owner, method, original in originals:
            setattr(owner, method, original)
    return noted


def cell(owner: type, method: str, when: str, error: Callable[[], BaseException], plain: list[torch.Tensor]) -> str:
    """``unharmed``, ``not reached``, or how the training was harmed."""
    original, reached = owner.__dict__[method], []

    def failing(*args: Any, **kwargs: Any) -> Any:
        if phase != when:
            return original(*args, **kwargs)
        reached.append(None)
        raise error()

    # A method that contains its own faults is planted within what contains them.
    setattr(owner, method, contained("planted")(failing) if hasattr(original, "__wrapped__") else failing)
    try:
        with tempfile.TemporaryDirectory() as directory:
            state, report = train(Path(directory))
    except Exception as fault:
        return f"{type(fault).__name__}: {fault}"
    finally:
        setattr(owner, method, original)
    if not reached:
        return "not reached"
    if len(state) != len(plain) or not all(map(torch.equal, state, plain)):
        return "other weights, state or random numbers"
    return "unharmed" if report is not None else "no report"


def main() -> int:
    """Run the matrix and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="take every so many cells only")
    parser.add_argument("--only", default="", help="parts whose name begins so")
    chosen = parser.parse_args()
    plain, _ = train(None)
    counts: dict[str, Counter[str]] = {}
    harmed = []
    noted = called()
    places = [(site, when) for site in sites(chosen.only) for when in PHASES if (*site[1:], when) in noted]
    cells = itertools.product(places, EXCEPTIONS.items())
    for ((part, owner, method), when), (kind, error) in itertools.islice(cells, 0, None, chosen.every):
        outcome = cell(owner, method, when, error, plain)
        if outcome == "not reached":  # where time decides
            continue
        counts.setdefault(part, Counter())["unharmed" if outcome == "unharmed" else "harmed"] += 1
        if outcome != "unharmed":
            harmed.append(f"{part} {owner.__name__}.{method} in {when}, {kind}: {outcome}")
            print(harmed[-1], flush=True)
    table = Table("part", "cells", "harmed", title="Faults planted in trainwatch, and trainings that they harmed")
    for part, count in counts.items():
        table.add_row(part, str(count.total()), str(count["harmed"]))
    total = sum((c for c in counts.values()), Counter[str]())
    table.add_row("all", str(total.total()), str(total["harmed"]))
    Console().print(table)
    return bool(harmed)


if __name__ == "__main__":
    sys.exit(main())
