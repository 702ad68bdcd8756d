"""Data sets that are indexed, and streams that can only be followed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import TensorDataset

from trainwatch.auditing.samples import Samples, Split
from trainwatch.auditing.sources.arrays import read_arrays
from trainwatch.auditing.sources.collecting import Collector
from trainwatch.auditing.sources.reading import AuditError, Reading, in_part, spread
from trainwatch.capture.augmentation import augmentations

HOPELESS = 20  # samples in a row that cannot be read


def read_dataset(dataset: Any, split: Split, reading: Reading, **more: Any) -> Samples:
    """A data set of samples that are indexed from 0; nothing but single samples is asked of it.

    Raises:
        AuditError: It is empty, or its samples cannot be used.
    """
    source = type(dataset).__name__
    if type(dataset) is TensorDataset and 1 <= len(dataset.tensors) <= 2 and reading.target is None:
        of, goal = (*dataset.tensors, None)[:2]
        return read_arrays(of, goal, split, reading, source, **more)
    total = len(dataset)
    if not total:
        raise AuditError(f"{source} is empty: there is no {split} sample to look at")
    collector = Collector(split, source, reading)
    try:
        collector.add(0, dataset[0])  # how large is a sample?
    except AuditError:
        raise
    except Exception as error:
        collector.problem(0, error)
    places, failed = spread(total, reading.room(collector.size)), 0
    rest = places[places > 0].tolist()
    for place in reading.track(rest, f"reading {split}", len(rest)):
        try:
            collector.add(place, dataset[place])
            failed = 0
        except Exception as error:
            failed += 1
            collector.problem(place, error)
            if failed == HOPELESS:
                collector.problem(place, f"{HOPELESS} samples in a row cannot be read: the rest was not tried")
                break
    return collector.samples(total, notes=(*in_part(len(places), total), *transformed(dataset)), **more)


def transformed(dataset: Any) -> tuple[str, ...]:
    """A note on transforms that change samples at random."""
    names = augmentations(dataset)
    return (f"read with random transforms at work ({', '.join(names)}): exact duplicates may look different",) * bool(
        names
    )


def read_stream(
    stream: Iterable[Any], split: Split, reading: Reading, *, batched: bool = False, **more: Any
) -> Samples:
    """What can only be followed from its start: the first samples, as many as the limits allow.

    Args:
        stream: Of samples, or of batches.
        split: Which part it is.
        reading: How it is read.
        batched: Whether it gives batches.
        more: Further fields of `Samples`.

    Raises:
        AuditError: It can be followed once only and may not be used up, it is empty, or its samples cannot be used.
    """
    source = str(more.pop("source", type(stream).__name__))
    if isinstance(stream, Iterator) and not reading.consume:
        raise AuditError(
            f"{source} can be followed only once, and looking at it would use it up: pass what it is made from, or "
            "consume=True"
        )
    collector = Collector(split, source, reading)
    count, ended = 0, False
    try:
        for item in reading.track(stream, f"reading {split}", None):
            collector.add_batch(None, item, count) if batched else collector.add(count, item)
            count += 1
            if collector.full:
                break
        else:
            ended = True
    except Exception as error:
        if isinstance(error, AuditError) and not len(collector):
            raise
        collector.problem(f"{'batch' if batched else 'sample'} {count}", error)
    total = len(collector) if ended else None
    notes = () if ended else (f"the first {len(collector):,} samples were read, not an even subset",)
    return collector.samples(total, notes=(*notes, *transformed(stream)), **more)


def looks_batched(item: Any) -> bool:
    """Whether something that a loader gives is a batch: its parts share their first dimension."""
    parts = list(item.values()) if isinstance(item, dict) else item if isinstance(item, (tuple, list)) else [item]
    sizes = {np.shape(part)[:1] for part in parts[:2] if hasattr(part, "shape")}
    return len(sizes) == 1 and sizes != {()}


def first_of(stream: Iterable[Any]) -> Any:
    """What something that can be followed again begins with; None where it is empty or fails, as is told later."""
    try:
        return next(iter(stream), None)
    except Exception:
        return None
