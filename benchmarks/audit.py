"""How long an audit takes, by the clock and in work of all cores, and what it finds of planted faults.

Run it: `python benchmarks/audit.py` (times), `python benchmarks/audit.py --faults` (what is found in real tables).
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split

from trainwatch.auditing.measures import AUDITED, asked, measured
from trainwatch.auditing.samples import Samples
from trainwatch.config import Settings
from trainwatch.engine import judge
from trainwatch.report import Report

ROWS, COLUMNS = 50_000, 100
IMAGES, PIXELS = 60_000, 28
SEEDS = range(3)


def part(split: str, x: np.ndarray, y: np.ndarray) -> Samples:
    layout = "images" if x.ndim == 4 else "rows"
    return Samples(split, "arrays", x, layout, y, np.arange(len(x)), len(x))  # type: ignore[arg-type]


def table() -> list[Samples]:
    """Rows of ten classes that overlap."""
    x, y = datasets.make_classification(
        ROWS, COLUMNS, n_informative=20, n_classes=10, n_clusters_per_class=1, class_sep=2.0, flip_y=0, random_state=0
    )
    return [part("train", x.astype(np.float32), y)]


def images() -> list[Samples]:
    """Smooth pictures of ten classes with noise, dark at the border."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 10, IMAGES)
    shapes = draw.standard_normal((10, 7, 7)).repeat(4, 1).repeat(4, 2)
    inside = np.zeros((PIXELS, PIXELS))
    inside[3:-3, 3:-3] = 1
    x = inside * (110 + 50 * shapes[y] + 20 * draw.standard_normal((IMAGES, PIXELS, PIXELS)))
    return [part("train", x.clip(0, 255).astype(np.uint8)[..., None], y)]


def halves(parts: list[Samples]) -> list[Samples]:
    """The same with every sixth sample for validation."""
    (whole,) = parts
    val = np.arange(len(whole)) % 6 == 0
    assert whole.targets is not None
    return [part(s, whole.inputs[r], whole.targets[r]) for s, r in (("train", ~val), ("val", val))]


def audit(parts: list[Samples], near: bool = False) -> Report:
    return judge(measured(parts, near_duplicates=near), Settings(), only=AUDITED)


def timed() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; seconds")
    warm = audit([part("train", *datasets.load_wine(return_X_y=True))])  # imports are not the audit's
    assert warm.ok
    print("| data | whole | of all cores | of these, by question |\n|---|---|---|---|")
    cases = {f"{ROWS:,} x {COLUMNS}": table(), f"{IMAGES:,} images of {PIXELS} x {PIXELS}": images()}
    for name, parts in [*cases.items(), *((f"{n}, a sixth for validation", halves(p)) for n, p in cases.items())]:
        spent: dict[str, float] = {}

        def clocked(question: object, look: object, spent: dict[str, float] = spent, ask: object = asked._ask) -> None:
            began = time.process_time()
            ask(question, look)  # type: ignore[operator]
            spent[question.__name__.rpartition(".")[2]] = time.process_time() - began  # type: ignore[attr-defined]

        began, worked = time.perf_counter(), time.process_time()
        with mock.patch.object(asked, "_ask", clocked):
            report = audit(parts)
        whole, work = time.perf_counter() - began, time.process_time() - worked
        shares = ", ".join(f"{q} {s:.1f}" for q, s in spent.items())
        print(f"| {name} | {whole:.1f} ({report.verdict}) | {work:.1f} | {shares} |", flush=True)


Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def faults() -> Iterator[tuple[str, str, Callable[[Parts], Parts]]]:
    """Name, code, and what is done to training and validation inputs and targets."""

    def at(value: float, of_val: bool = False) -> Callable[[Parts], Parts]:
        def change(p: Parts) -> Parts:
            x = (p[1] if of_val else p[0]).copy()
            x[::20, 2] = value
            return (p[0], x, *p[2:]) if of_val else (x, *p[1:])

        return change

    def leak(p: Parts) -> Parts:
        k = len(p[1]) // 10
        return np.r_[p[0], p[1][:k]], p[1], np.r_[p[2], p[3][:k]], p[3]

    def copies(p: Parts) -> Parts:
        k = len(p[0]) // 10
        return np.r_[p[0], p[0][:k]], p[1], np.r_[p[2], p[2][:k]], p[3]

    def constant(p: Parts) -> Parts:
        return np.where(np.arange(p[0].shape[1]) == 2, 1, p[0]), *p[1:]

    def unscaled(p: Parts) -> Parts:
        mean, deviation = p[0].mean(0), p[0].std(0) + 1e-9
        x, xv = (p[0] - mean) / deviation, (p[1] - mean) / deviation
        x[:, 2] *= 1000
        xv[:, 2] *= 1000
        return x, xv, p[2], p[3]

    def elsewhere(p: Parts) -> Parts:
        xv = p[1] + 1.5 * p[0].std(0) * (np.arange(p[0].shape[1]) % 3 == 0)
        return p[0], xv, p[2], p[3]

    yield "nothing", "", lambda p: p
    yield "a tenth of validation is in training", "TW110", leak
    yield "a tenth of training is there twice", "TW110", copies
    yield "NaN in one feature", "TW111", at(np.nan)
    yield "infinite in one feature of validation", "TW111", at(np.inf, True)
    yield "-999 for what is missing", "TW111", at(-999.0)
    yield "a feature constant in training alone", "TW111", constant
    yield "the target among the features", "TW111", lambda p: (np.c_[p[0], p[2]], np.c_[p[1], p[3]], *p[2:])
    yield "one feature not standardised", "TW107", unscaled
    yield "validation in another unit", "TW109", lambda p: (p[0], p[1] * 255, *p[2:])
    yield "validation shifted", "TW109", elsewhere
    yield "5 % of the labels exchanged", "TW106", exchanged


def exchanged(p: Parts) -> Parts:
    draw, classes = np.random.default_rng(len(p[2])), int(p[2].max()) + 1
    wrong = draw.random(len(p[2])) < 0.05
    return p[0], p[1], np.where(wrong, (p[2] + draw.integers(1, classes, len(p[2]))) % classes, p[2]), p[3]


def found() -> None:
    print(f"named first, of {len(SEEDS)} random splits each\n| planted | digits | wine | breast cancer | diabetes |")
    print("|---|---|---|---|---|")
    for name, code, change in faults():
        cells = []
        for data in ("digits", "wine", "breast_cancer", "diabetes"):
            x, y = getattr(datasets, f"load_{data}")(return_X_y=True)
            if code == "TW106" and data == "diabetes":
                cells.append("")
                continue
            hits = 0
            for seed in SEEDS:
                p = change(tuple(train_test_split(x.astype(float), y, random_state=seed)))  # type: ignore[arg-type]
                codes = [d.code for d in audit([part("train", p[0], p[2]), part("val", p[1], p[3])]).findings()]
                hits += codes[:1] == [code] if code else not codes
            cells.append(f"{hits}")
        print(f"| {name} ({code or 'silent'}) | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", action="store_true")
    found() if parser.parse_args().faults else timed()
