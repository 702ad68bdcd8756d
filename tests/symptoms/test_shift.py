import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from trainwatch.record import RunRecord
from trainwatch.symptoms.shift import class_shift, input_shift, within

RNG = np.random.default_rng(0)


def test_the_area_is_that_of_the_roc_curve_ties_included():
    low, high = RNG.integers(0, 6, 40).astype(float), RNG.integers(2, 8, 30).astype(float)
    area = roc_auc_score(np.repeat([0, 1], [40, 30]), np.r_[low, high])
    assert within([(low, high)]).auc == pytest.approx(area)
    assert within([(high, low)]).auc == pytest.approx(1 - area)


def test_the_error_is_what_repeated_draws_show():
    draws = [within([(RNG.standard_normal(60), RNG.standard_normal(40) + 0.5)]) for _ in range(400)]
    assert np.mean([d.error for d in draws]) == pytest.approx(np.std([d.auc for d in draws]), rel=0.15)
    assert np.mean([d.low > 0.5 for d in draws]) > 0.5


def test_shares_of_groups_do_not_count():
    """Pooled, these can be told apart by their groups alone."""
    a, b = RNG.standard_normal((2, 200)), RNG.standard_normal((2, 200)) + 10
    groups = [(a[0][:180], a[1][:20]), (b[0][:20], b[1][:180])]
    pooled = within([tuple(np.concatenate(parts) for parts in zip(*groups, strict=True))])
    assert pooled.auc > 0.8
    assert within(groups).auc == pytest.approx(0.5, abs=0.15)
    assert within([]).low < 0


def measured(train, val):
    record = RunRecord()
    for kind, rows in (("train", train), ("val", val)):
        padded = np.full((512, 3), np.nan)
        padded[: len(rows)] = rows
        record.append("held_shift", kind, 9, padded)
    record.append("shift_features", "inputs", 9, [[3, 0.5, 0.0, 1.0], [1, 0.2, 2.0, 2.5], [np.nan] * 4])
    return input_shift(record)


def rows(y, votes, far):
    return np.stack([y, votes, far], 1).astype(float)


def test_votes_and_distances_are_compared_within_classes():
    y = np.arange(100) % 2
    found = measured(rows(y, y, np.arange(100)), rows(y, y + 0.5, np.arange(100)))
    assert found.told.auc == 1.0
    assert found.further.auc == pytest.approx(0.5)
    assert (found.train, found.val) == (100, 100)
    assert found.features == [(3, 0.5, 0.0, 1.0), (1, pytest.approx(0.2), 2.0, 2.5)]
    assert measured(rows(y, y, y), rows(y, y, y)).told.auc == pytest.approx(0.5)


def test_where_targets_are_numbers_all_are_compared_at_once():
    y = np.linspace(0, 1, 100)
    assert measured(rows(y, y, y), rows(y, y, y + 2)).further.auc == 1.0


def classes(train, val, samples=None):
    record = RunRecord()
    record.append("train_classes", "targets", 0, np.append(np.asarray(train, float), 0))
    record.append("val_loss", "val", 9, 1.0)
    record.append("val_confusion", "val", 9, np.diag(np.asarray(val, float)))
    record.set_fact("validation", {"val": {"kind": "val", "primary": True}})
    record.set_fact("run", {"train_samples": samples})
    return class_shift(record)


def test_the_test_is_the_chi_squared_one():
    from scipy.stats import chi2_contingency

    found = classes([300, 200, 100], [50, 60, 40], samples=600)
    assert found.chance == pytest.approx(chi2_contingency([[300, 200, 100], [50, 60, 40]]).pvalue)
    assert found.distance == pytest.approx(0.5 * (abs(0.5 - 1 / 3) + abs(1 / 3 - 0.4) + abs(1 / 6 - 4 / 15)))
    assert found.unseen == 0


def test_unseen_classes_and_counts_of_many_epochs():
    assert classes([300, 0, 300], [50, 10, 40], samples=600).unseen == pytest.approx(0.1)
    often, once = classes([3000, 2000], [50, 50]), classes([3000, 2000], [50, 50], samples=5000)
    assert often.chance > once.chance
    assert classes([300, 200], [1, 1, 1], samples=500) is None
