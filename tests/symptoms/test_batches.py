import numpy as np
import pytest
from batched import recorded
from scipy.stats import hypergeom

from trainwatch.record import RunRecord
from trainwatch.symptoms.batches import absent_by_chance, batch_classes
from trainwatch.symptoms.classes import TrainClasses


@pytest.mark.parametrize("size", [1, 7, 20, 99, 100])
def test_chance_is_hypergeometric(size):
    counts = np.array([70, 25, 4, 1, 0])
    known = TrainClasses(counts.astype(float), tuple("abcde"), True)
    assert absent_by_chance(known, size) == pytest.approx(hypergeom.pmf(0, 100, counts, size), abs=1e-9)
    endless = TrainClasses(counts * 1e6, tuple("abcde"), True)
    unknown = TrainClasses(counts.astype(float), tuple("abcde"), False)
    assert absent_by_chance(unknown, size) == pytest.approx(absent_by_chance(endless, size), abs=1e-4)


@pytest.mark.parametrize(("rates", "size"), [([0.5, 0.5], 4), ([0.1] * 10, 8), ([0.9, 0.09, 0.01], 16)])
def test_shuffled_batches_are_by_chance(rates, size):
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(len(rates)), (np.array(rates) * 640).astype(int))
    found = [
        batch_classes(recorded(targets, size, classes=len(rates), epochs=3, samples=len(targets), shuffle=rng))
        for _ in range(60)
    ]
    beyond = np.array([(f.classes - f.by_chance) / f.error for f in found])
    assert abs(beyond.mean()) < 0.4
    assert 0.3 < beyond.std() < 1.2  # batches of an epoch share out its samples: less than independent draws


def test_sorted_batches_fall_short():
    targets = np.repeat(np.arange(10), 64)
    found = batch_classes(recorded(targets, 16, classes=10, samples=640))
    assert found.shortfall == pytest.approx(1)
    assert found.classes == pytest.approx(1)
    assert (found.batches, found.size) == (40, 16)
    assert found.absent.tolist() == [0.9] * 10
    dealt = batch_classes(recorded(np.tile(np.arange(10), 64), 20, classes=10, samples=640))
    assert dealt.shortfall < 0


def test_sizes_are_weighed_by_their_batches():
    targets = np.repeat(np.arange(2), 21)
    found = batch_classes(recorded(targets, 10, classes=2, samples=42))
    assert (found.batches, found.size) == (5, 10)
    assert found.classes == pytest.approx(6 / 5)  # one batch lies across the border
    assert found.expected[0] == pytest.approx((4 * hypergeom.pmf(0, 42, 21, 10) + hypergeom.pmf(0, 42, 21, 2)) / 5)


def test_nothing_was_counted():
    assert batch_classes(RunRecord()) is None
    record = RunRecord()
    record.append("train_classes", "targets", 0, [3, 3, 0])
    assert batch_classes(record) is None
