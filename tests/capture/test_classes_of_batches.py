"""Which classes do not occur in which training batches, counted at the flush."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch
from trainwatch.capture.classes import MOST_SIZES

X = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
SORTED = torch.arange(100) * 3 // 100  # 34 of class 0, 33 of the others


def record(batches, *, outputs=3, loss=F.cross_entropy, shape=None, clone=False, parts=1):
    torch.manual_seed(0)
    model = nn.Linear(4, outputs)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "probes": "off"}) as watch:
        for number, (x, y) in enumerate(batches, 1):
            out = model(x)
            loss(out if shape is None else out.reshape(shape), y).backward()
            if number % parts == 0:
                optimizer.step()
                optimizer.zero_grad()
            if clone:
                y.add_(0)  # in place: what was held is no longer what was trained on
    return watch.record


def absent(found):
    return {
        k: found.series("batches_without_class", k).values.sum(0).tolist() for k in found.keys("batches_without_class")
    }


def slow(batches, classes):
    """The same, one batch after another."""
    table = {}
    for _, y in batches:
        row = table.setdefault(str(len(y)), [0] * (classes + 1))
        for k in range(classes):
            row[k] += int(not (y == k).any())
        row[-1] += 1
    return table


@pytest.mark.parametrize(
    "y", [SORTED, SORTED[torch.randperm(100)], SORTED.clone().index_fill_(0, torch.arange(20), -100)]
)
def test_counts_agree_with_a_loop(y):
    batches = [pair for _ in range(3) for pair in zip(X.split(16), y.split(16), strict=True)]
    assert absent(record(batches)) == slow(batches, 3)


def test_parts_of_a_step_are_one_batch_though_the_last_is_smaller():
    parts = list(zip(X.split(40), SORTED.split(40), strict=True))
    assert len(parts) == 3
    assert absent(record(parts * 4, parts=3)) == {"100": [0, 0, 0, 4]}


def test_one_output_has_two_classes():
    y = (SORTED == 1).float()[:, None]
    batches = list(zip(X.split(16), y.split(16), strict=True))
    assert absent(record(batches, outputs=1, loss=F.binary_cross_entropy_with_logits)) == slow(batches, 2)


NOT_BY_BATCH = {
    "several-labels": (torch.ones(16, 3), F.binary_cross_entropy_with_logits, None),
    "soft-targets": (torch.ones(16, 3) / 3, F.cross_entropy, None),
    "several-positions-a-sample": (torch.zeros(48).long(), F.cross_entropy, (48, 1)),
}


@pytest.mark.parametrize(("y", "loss", "shape"), NOT_BY_BATCH.values(), ids=NOT_BY_BATCH)
def test_what_is_no_class_of_a_sample_is_not_looked_at(y, loss, shape):
    found = record([(X[:16], y)] * 3, loss=loss, shape=shape)
    assert found.has("train_classes")
    assert absent(found) == {}


def test_targets_changed_in_place_are_not_counted():
    assert absent(record([(X[:16], SORTED[:16].clone()) for _ in range(3)], clone=True)) == {}


def test_few_sizes_are_kept():
    found = record([(X[:n], SORTED[:n]) for n in range(1, 3 * MOST_SIZES)])
    assert list(absent(found)) == [str(n) for n in range(1, MOST_SIZES + 1)]
