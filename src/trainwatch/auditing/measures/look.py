"""What each question is given: the parts of a data set, what is to be learned of them, and the record to write to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwatch.auditing.samples import Samples
from trainwatch.probes.tables import MOST_FEATURES
from trainwatch.record import RunRecord

Array = NDArray[Any]

STEP = 0  # of every row: nothing was trained yet
SIDE = 32  # pixels: larger images are averaged over squares before forests and neighbours see them
CLASSIFIED = ("binary", "multiclass")
ENTRIES = 1 << 22  # that are turned into other numbers at a time


class Cannot(Exception):
    """A question that these data do not answer; the text says why, as the report prints it."""


@dataclass(frozen=True)
class Look:
    """The data under audit.

    Attributes:
        train, val: Its parts; None without validation.
        task: What is to be learned: as in the fact ``task`` of a record.
        near: Whether samples that are almost equal are looked for, too.
        seed: Of what is drawn at random.
        record: What is measured goes in here.
    """

    train: Samples
    val: Samples | None
    task: str | None
    near: bool
    seed: int
    record: RunRecord

    @property
    def parts(self) -> dict[str, Samples]:
        """Split -> samples, of those that are there."""
        return {part.split: part for part in (self.train, self.val) if part is not None and len(part)}

    def both(self) -> tuple[Samples, Samples]:
        """Training and validation.

        Raises:
            Cannot: There is no validation, or its samples have another shape.
        """
        if self.val is None or not len(self.val):
            raise Cannot("there are no validation data")
        if self.val.inputs.shape[1:] != self.train.inputs.shape[1:]:
            raise Cannot(f"validation samples have the shape {self.val.inputs.shape[1:]}, those of training "
                         f"{self.train.inputs.shape[1:]}")  # fmt: skip
        return self.train, self.val

    def some(self, count: int, most: int) -> Array:
        """Rising positions of `most` of so many samples, drawn at random; of all where there are no more."""
        if count <= most:
            return np.arange(count)
        return np.sort(np.random.default_rng(self.seed).choice(count, most, replace=False))

    def note(self, topic: str, split: str, value: Any) -> None:
        """Add to a fact that is told of each part."""
        self.record.set_fact(topic, {**self.record.facts.get(topic, {}), split: value})


def labels_of(samples: Samples, task: str | None) -> Array | None:
    """The class of each sample, shape (n,), -1 where it has none; None where the task is not one class a sample."""
    if samples.targets is None or task not in CLASSIFIED:
        return None
    flat = samples.targets.reshape(-1)
    if flat.dtype.kind != "f":
        return np.maximum(flat.astype(np.int64), -1)
    known = np.isfinite(flat) & (flat >= 0)
    return np.where(known, np.nan_to_num(flat), -1).astype(np.int64)


def table(samples: Samples, chosen: Array) -> Array:
    """Some samples as rows of numbers that are all finite, shape (len(chosen), features), float32.

    Of large images the means over squares of pixels; of other samples with very many entries some at even distances.
    """
    x = samples.inputs[chosen].astype(np.float32)
    if samples.layout == "images":
        x = _smaller(x)
    x = x.reshape(len(x), -1)
    if x.shape[1] > MOST_FEATURES:
        x = x[:, np.linspace(0, x.shape[1] - 1, MOST_FEATURES).astype(np.int64)]
    return np.asarray(np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0))


def chunks(x: Array) -> Iterator[Array]:
    """An array in pieces along its first axis, each small enough to be copied."""
    rows = max(1, ENTRIES // max(1, x[:1].size))
    for begin in range(0, len(x), rows):
        yield x[begin : begin + rows]


def _smaller(images: Array) -> Array:
    n, height, width, channels = images.shape
    by = -(-max(height, width) // SIDE)
    if by == 1 or min(height, width) < by:
        return images
    cut = images[:, : height // by * by, : width // by * by]
    return np.asarray(cut.reshape(n, height // by, by, width // by, by, channels).mean((2, 4)))
