"""What every source of data is read into: one part of a data set as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val"]
Layout = Literal["rows", "images", "other"]


@dataclass(frozen=True)
class Problem:
    """Something that could not be read, or does not fit the rest.

    Attributes:
        place: A path, or the position of a sample in its source.
        what: What is wrong with it, as a sentence without a subject.
    """

    place: str
    what: str


@dataclass(frozen=True)
class Samples:
    """One part of a data set, or an evenly spread subset of a large one.

    Attributes:
        split: ``train`` or ``val``.
        source: What it was read from, for people: a path or the name of a class.
        inputs: Numbers as the source holds them, shape (n, *sample); images as (n, height, width, channels).
        layout: ``rows`` of features, ``images``, or ``other`` (sequences, volumes).
        targets: Class numbers, numbers to predict (n,) or (n, outputs), yes / no labels (n, labels); None without.
        places: Position of each sample in its source, shape (n,), rising.
        total: Samples that the source holds; None where it does not say.
        batches: Number of the batch that each sample came in, shape (n,), where the source makes batches.
        shuffled: Whether the source draws samples in a new order each time; None where that is not known.
        feature_names: One per feature of ``rows``; empty where unknown.
        categorical: Of each feature, whether its numbers stand for categories or tokens; empty where none does.
        class_names: One per class number; empty where unknown.
        files: Path of each sample, for a folder; else empty.
        inventory: Of a folder: kinds of files, unreadable ones, labels without a file and the reverse.
        problems: What could not be read.
    """

    split: Split
    source: str
    inputs: NDArray[Any]
    layout: Layout
    targets: NDArray[Any] | None
    places: NDArray[np.int64]
    total: int | None
    batches: NDArray[np.int64] | None = None
    shuffled: bool | None = None
    feature_names: tuple[str, ...] = ()
    categorical: tuple[bool, ...] = ()
    class_names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    inventory: dict[str, Any] | None = None
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)
