"""How large the inputs of held training samples are beside one another: a broken one dwarfs all others (§9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainwatch.probes.bench import Bench
from trainwatch.probes.evaluated import MANY
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.symptoms.spikes import FAR

KIND = "row_sizes"
QUANTITIES = ("row_sizes",)
AT_END = True
FEWEST = 60
GAP = 8.0  # times the largest of the others: sizes between them would tell of a long tail
LISTED = 5

Column = NDArray[Any]


def measure(bench: Bench) -> None:
    """Measure the root mean square of each sample's input, of numbers that are finite.

    A row of `row_sizes`, shape (4 + 2 LISTED), is the number of different sizes, the median, the largest over it, the
    number of different ones above FAR times the median, with a gap of GAP before them, and the places of the first:
    step and row.

    Raises:
        CannotIsolate: The inputs are no numbers, or too few samples are held.
    """
    batches: Sequence[Any] = bench.batches("train", MANY)
    sizes, steps, rows = (np.concatenate(part) for part in zip(*_sizes(batches), strict=True))
    if len(sizes) < FEWEST:
        raise CannotIsolate(f"fewer than {FEWEST} training samples are held")
    median = float(np.median(sizes))
    if not median > 0:
        raise CannotIsolate("the inputs of most samples are zero")
    far = np.flatnonzero(sizes > FAR * median)
    if len(far) and sizes[far].min() < GAP * sizes[sizes <= FAR * median].max():
        far = far[:0]  # one tail with those before: such values are rare, not broken
    places = np.full(2 * LISTED, np.nan)
    shown = np.stack([steps[far], rows[far]], 1)[:LISTED].ravel()
    places[: len(shown)] = shown
    bench.record.append(
        "row_sizes",
        "train",
        bench.step,
        [len(np.unique(sizes)), median, sizes.max() / median, len(np.unique(sizes[far])), *places],
    )


def _sizes(batches: Sequence[Any]) -> Iterator[tuple[Column, Column, Column]]:
    """Sizes of a batch's samples, the step it was seen at, and their rows."""
    for batch in batches:
        inputs = next((t for role, _, t in batch.tensors() if role == "input" and t.ndim > 1), None)
        if inputs is None or not inputs.is_floating_point():
            raise CannotIsolate("the inputs are not numbers")
        flat = torch.nan_to_num(inputs.detach().double().flatten(1), 0.0, 0.0, 0.0)
        sizes = flat.square().mean(1).sqrt().cpu().numpy()
        yield sizes, np.full(len(sizes), batch.step), np.arange(len(sizes))
