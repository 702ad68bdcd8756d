"""Loaders: their data set is indexed and collated here, so no worker starts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from trainwatch.auditing.samples import Samples, Split
from trainwatch.auditing.sources.collecting import Collector
from trainwatch.auditing.sources.datasets import read_dataset, read_stream, transformed
from trainwatch.auditing.sources.reading import AuditError, Reading, in_part, spread

ORDERS = {SequentialSampler: False, RandomSampler: True}
ENDLESS = 100_000  # batches of a sampler that does not end


def read_loader(loader: DataLoader[Any], split: Split, reading: Reading) -> Samples:
    """The samples behind a loader, each once, with the batches that one pass over it makes.

    Raises:
        AuditError: It is empty, or its samples cannot be used.
    """
    dataset, source = loader.dataset, f"DataLoader of {type(loader.dataset).__name__}"
    if isinstance(dataset, IterableDataset):
        # Another loader, since this one may start workers, which each read everything where the set does not share.
        alone = DataLoader(dataset, loader.batch_size, collate_fn=loader.collate_fn, drop_last=loader.drop_last)
        return read_stream(alone, split, reading, batched=loader.batch_size is not None, source=source)
    if loader.batch_sampler is None:
        if type(loader.sampler) in ORDERS:
            return read_dataset(dataset, split, reading)
        return read_stream(_Sampled(dataset, loader.sampler), split, reading, batched=True, source=source)
    batches = [list(batch) for batch in islice(iter(loader.batch_sampler), ENDLESS)]
    if not batches:
        raise AuditError(
            f"{source} is empty: it gives no batch (drop_last leaves none where there are too few samples)"
        )
    once = sum(map(len, batches)) == len({i for batch in batches for i in batch})  # else drawn with replacement
    fetch = _Fetch(loader, Collector(split, source, reading), keep_batches=once)
    fetch(0, batches[0])  # how large is a sample?
    room = reading.room(fetch.collector.size) // max(len(batches[0]), 1)
    chosen = (1 + spread(len(batches) - 1, max(0, room - 1))).tolist()
    for number in reading.track(chosen, f"reading {split}", len(chosen)):
        fetch(number, batches[number])
    total = len(dataset) if hasattr(dataset, "__len__") else None
    left = (total or 0) - len({i for batch in batches for i in batch})
    notes = in_part(1 + len(chosen), len(batches), "batches") + transformed(dataset)
    notes += (f"{left:,} samples of the data set are in no batch of this pass",) * (left > 0)
    return fetch.collector.samples(total, notes=notes, shuffled=ORDERS.get(type(loader.sampler)))


class _Fetch:
    """Does what a loader does for a batch, but for samples that were there before, and on past those that fail."""

    def __init__(self, loader: DataLoader[Any], collector: Collector, *, keep_batches: bool) -> None:
        self._loader, self.collector, self._keep = loader, collector, keep_batches
        self._seen: set[int] = set()

    def __call__(self, number: int, indices: list[int]) -> None:
        fresh = [i for i in dict.fromkeys(indices) if i not in self._seen]
        self._seen.update(fresh)
        read = [(index, sample) for index in fresh for sample in self._sample(index)]
        if not read:
            return
        try:
            batch = self._loader.collate_fn([sample for _, sample in read])
        except Exception as error:
            self.collector.problem(f"batch {number}", error)
            return
        try:
            self.collector.add_batch([index for index, _ in read], batch, number if self._keep else None)
        except AuditError as error:
            if not len(self.collector):
                raise
            self.collector.problem(f"batch {number}", error)

    def _sample(self, index: int) -> Iterator[Any]:
        try:
            yield self._loader.dataset[index]
        except Exception as error:
            self.collector.problem(index, error)


class _Sampled:
    """A data set that makes its batches itself, in the order of a sampler."""

    def __init__(self, dataset: Any, sampler: Any) -> None:
        self._dataset, self._sampler = dataset, sampler

    def __iter__(self) -> Iterator[Any]:
        return map(self._dataset.__getitem__, self._sampler)
