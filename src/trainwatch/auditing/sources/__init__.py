"""Sources of data: one file a kind, all read into `Samples`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from trainwatch.auditing.samples import Problem, Samples, Split
from trainwatch.auditing.sources.arrays import read_arrays, read_mapping, read_stored
from trainwatch.auditing.sources.datasets import first_of, looks_batched, read_dataset, read_stream
from trainwatch.auditing.sources.folders import IMAGES, parts_in, read_folder
from trainwatch.auditing.sources.loaders import read_loader
from trainwatch.auditing.sources.modules import is_data_module, loaders_of
from trainwatch.auditing.sources.reading import AuditError, Reading
from trainwatch.auditing.sources.states import as_before
from trainwatch.auditing.sources.tables import is_table, read_frame, read_table

__all__ = ["AuditError", "Reading", "read", "read_parts"]
KNOWN = (
    "a path (folder of images, .csv, .parquet, .npy, .npz), arrays or tensors, a pair (inputs, targets), a dict of "
    "arrays, a data frame, a Dataset, a DataLoader or a LightningDataModule"
)


def read_parts(train: Any, val: Any, reading: Reading) -> list[Samples]:
    """Training, and validation where it is given or lies beside.

    Raises:
        AuditError: One of them cannot be read.
    """
    with as_before((train, val)):
        if is_data_module(train):
            train, found = loaders_of(train)
            val = found if val is None else val
            with as_before((train, val)):  # loaders that were only made now
                return _both(train, val, reading)
        if isinstance(train, (str, Path)) and Path(train).is_dir():
            train, found = parts_in(Path(train))
            val = found if val is None else val
        return _both(train, val, reading)


def _both(train: Any, val: Any, reading: Reading) -> list[Samples]:
    first = read(train, "train", reading)
    if val is None:
        return [first]
    other = read(val, "val", reading)
    shape, expected = other.inputs.shape[1:], first.inputs.shape[1:]
    if shape != expected:
        told = Problem("all samples", f"have shape {shape}, those of training {expected}")
        other = replace(other, problems=(told, *other.problems))
    return [first, other]


def read(source: Any, split: Split, reading: Reading) -> Samples:
    """One part of a data set.

    Args:
        source: Anything that `KNOWN` names.
        split: Which part it is.
        reading: How; the same for all parts of one data set.

    Raises:
        AuditError: It cannot be read; the text says what to pass instead.
    """
    name = type(source).__name__
    if isinstance(source, (str, Path)):
        return _path(Path(source), split, reading)
    if isinstance(source, DataLoader):
        return read_loader(source, split, reading)
    if hasattr(source, "columns") and hasattr(source, "to_numpy"):
        return read_frame(source, None, split, reading, name)
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return read_arrays(source, None, split, reading, name)
    if isinstance(source, tuple) and len(source) == 2:
        return _pair(source, split, reading)
    if isinstance(source, Mapping):
        return read_mapping(source, split, reading, name)
    if isinstance(source, list) and source and isinstance(source[0], (int, float, list)):
        return read_arrays(source, None, split, reading, name)
    if isinstance(source, (type, tuple)) or source is None:
        raise AuditError(
            f"{split} data must be {KNOWN}; got {'a tuple' if isinstance(source, tuple) else repr(source)}"
        )
    if isinstance(source, (Iterator, IterableDataset)):
        return read_stream(source, split, reading, batched=False)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return read_dataset(source, split, reading)
    if isinstance(source, Iterable):
        return read_stream(source, split, reading, batched=looks_batched(first_of(source)))
    raise AuditError(f"{split} data must be {KNOWN}; got {name}")


def _pair(pair: tuple[Any, Any], split: Split, reading: Reading) -> Samples:
    of, goal = pair
    if hasattr(of, "columns") and hasattr(of, "to_numpy"):
        return read_frame(of, goal, split, reading, type(of).__name__)
    return read_arrays(of, goal, split, reading, f"({type(of).__name__}, {type(goal).__name__})")


def _path(path: Path, split: Split, reading: Reading) -> Samples:
    if not path.exists():
        raise AuditError(f"{path} does not exist")
    if path.is_dir():
        return read_folder(path, split, reading)
    if is_table(path):
        return read_table(path, split, reading)
    if path.suffix.lower() in (".npy", ".npz"):
        return read_stored(path, split, reading)
    hint = "; pass the folder that holds it" if path.suffix.lower() in IMAGES else ""
    raise AuditError(f"{path} is of no kind that is known: pass {KNOWN}{hint}")
