"""Class counts of training targets: references are kept, and counted at the flush."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray

from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.interception import LossCall

HELD_BYTES = 64 << 20  # of targets kept alive until the flush; beyond, batches go uncounted
MOST_CLASSES = 4096
MOST_SIZES = 4  # of batches, whose classes are counted batch by batch: the usual size, a last batch, and some more
OVER_CLASSES = {"cross_entropy", "nll_loss", "multi_margin_loss"}
PER_LABEL = {"binary_cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss"}


def classes_of(call: LossCall) -> int | None:
    """Number of classes that a loss call distinguishes: the width of its logits; 2 for one logit; else None."""
    if call.input is None or call.input.ndim == 0:
        return None
    if call.sort in OVER_CLASSES:
        return int(call.input.shape[1 if call.input.ndim > 1 else 0])
    if call.sort in PER_LABEL:
        return 2 if labels_of(call) == 1 else labels_of(call)
    return None


def labels_of(call: LossCall) -> int:
    """Number of yes / no labels per sample in a call of a loss over logits or probabilities."""
    return int(call.input.shape[-1]) if call.input is not None and call.input.ndim > 1 else 1


def class_indices(name: str, target: torch.Tensor) -> torch.Tensor:
    """Targets of a loss as class indices: soft ones by their largest entry, those of one logit by 0.5."""
    if name in OVER_CLASSES:
        if target.is_floating_point():
            return target.argmax(1 if target.ndim > 1 else 0)
        return target
    return (target > 0.5).long()


class ClassCounter:
    """Counts the classes of training targets.

    Attributes:
        uncounted: Batches that were not counted, since too many bytes would have been kept alive or the loop changed
            the tensor in place.
    """

    def __init__(self) -> None:
        self.uncounted = 0
        self._held: list[tuple[str, int, int, torch.Tensor, int | None, int | None]] = []
        self._bytes = 0
        self._sizes: set[int] = set()
        self._first: dict[str, int] = {}  # key -> as many classes, or labels, as were seen first

    def hold(
        self, sort: str, classes: int, labels: int, target: torch.Tensor, step: int, samples: int | None = None
    ) -> None:
        """Remember the targets of one training batch.

        Args:
            sort: The functional loss whose targets these are.
            classes: Number of classes, see `classes_of`.
            labels: Labels per sample, see `labels_of`.
            target: The targets, which the loop may go on using, but should not change in place.
            step: The optimiser step that they belong to: what is accumulated, or comes in parts of one class each (as
                what a discriminator is given), is one batch.
            samples: Samples that the model was given, where seen. With a target each, batches are looked at one by
                one; pixels or tokens of a sample are alike, and say nothing of how batches are drawn.
        """
        key = _key(sort, labels)
        if (width := labels if key == "labels" else classes) != self._first.setdefault(key, width):
            return  # another task of the same run: its classes are others
        size = target.numel() * target.element_size()
        if classes > MOST_CLASSES or self._bytes + size > HELD_BYTES:
            self.uncounted += 1
            return
        self._bytes += size
        alone = target.ndim > 0 and len(target) == samples and target.numel() == samples
        self._held.append((sort, classes, labels, target, version_of(target), step if alone else None))

    def flush(
        self,
        reads: DeferredReads,
        deliver: Callable[[str, NDArray[Any]], None],
        deliver_absent: Callable[[str, NDArray[Any]], None],
    ) -> None:
        """Count what is held.

        Args:
            reads: Where the counts are read from the device.
            deliver: Called with the key (``"targets"`` or ``"labels"``) and counts of shape (K + 1,).
            deliver_absent: Called with the size of batches and how many of them are without each class, shape (K + 1,);
                the last entry is the number of those batches.
        """
        held, self._held, self._bytes = self._held, [], 0
        batches: dict[tuple[Any, ...], list[torch.Tensor]] = defaultdict(list)
        single: dict[tuple[Any, ...], list[torch.Tensor]] = defaultdict(list)
        steps: dict[tuple[Any, ...], list[torch.Tensor]] = defaultdict(list)
        for sort, classes, labels, target, version, step in held:
            if version_of(target) != version:
                self.uncounted += 1
                continue
            batches[sort, classes, labels, target.dtype, target.device, target.shape[1:]].append(target)
            if step is not None:
                steps[step, sort, classes, target.dtype, target.device, target.shape[1:]].append(target)
        totals: dict[tuple[str, int, torch.device], torch.Tensor] = {}
        with torch.no_grad():
            for (_, sort, classes, dtype, device, _), targets in steps.items():
                target = targets[0] if len(targets) == 1 else torch.cat(targets)
                if len(self._sizes) < MOST_SIZES or len(target) in self._sizes:
                    self._sizes.add(len(target))
                    single[sort, classes, dtype, device, target.shape].append(target)
            for (sort, classes, labels, *_), targets in batches.items():
                whole = torch.cat(targets) if targets[0].ndim else torch.stack(targets)
                key, counts = _count(sort, classes, labels, whole)
                slot = (key, len(counts), counts.device)
                totals[slot] = totals[slot] + counts if slot in totals else counts
            for (sort, classes, *_, shape), targets in single.items():
                absent = _absent(class_indices(sort, torch.cat(targets)).reshape(len(targets), -1), classes)
                reads.read([absent], lambda arrays, size=str(shape[0]): deliver_absent(size, arrays[0]))  # type: ignore[misc]
        for (key, _, _), counts in totals.items():
            reads.read([counts], lambda arrays, key=key: deliver(key, arrays[0]))  # type: ignore[misc]


def count_classes(indices: torch.Tensor, classes: int) -> torch.Tensor:
    """Counts of shape (classes + 1,); whatever lies outside 0 .. classes - 1 is counted in the last.

    Every index is clamped first: an index out of range would be a device-side assertion, which nobody can catch.
    """
    flat = indices.reshape(-1).long()
    safe = torch.where((flat >= 0) & (flat < classes), flat, classes)
    counts = torch.zeros(classes + 1, dtype=torch.long, device=flat.device)
    return counts.scatter_add_(0, safe, torch.ones_like(safe))


def _absent(indices: torch.Tensor, classes: int) -> torch.Tensor:
    """Rows of shape (batches, samples) without each class, shape (classes + 1,); the number of rows comes last."""
    rows = torch.arange(len(indices), device=indices.device)[:, None] * (classes + 1)
    safe = torch.where((indices >= 0) & (indices < classes), indices, classes).long() + rows
    counts = count_classes(safe, len(indices) * (classes + 1))[:-1].reshape(len(indices), -1)
    absent = (counts[:, :classes] == 0).sum(0)
    return torch.cat([absent, torch.full((1,), len(indices), device=absent.device)])


def _count(sort: str, classes: int, labels: int, target: torch.Tensor) -> tuple[str, torch.Tensor]:
    indices = class_indices(sort, target)
    if (key := _key(sort, labels)) == "labels":
        per_sample = indices.reshape(-1, labels)
        samples = torch.full((1,), per_sample.shape[0], device=indices.device)
        return key, torch.cat([per_sample.sum(0), samples])
    return key, count_classes(indices, classes)


def _key(sort: str, labels: int) -> str:
    """Under which targets are counted: ``"labels"`` where samples have several, else ``"targets"``."""
    return "labels" if sort in PER_LABEL and labels > 1 else "targets"


def version_of(tensor: torch.Tensor) -> int | None:
    """Counts the changes in place of a tensor; None where nothing counts them."""
    return None if tensor.is_inference() else tensor._version
