import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from trainwatch.record import RunRecord
from trainwatch.symptoms.classes import (
    Confusion,
    average_precision,
    binary_scores,
    confusions,
    share_bounds,
    share_difference,
    temperature,
    train_classes,
)


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    true = rng.choice(4, 500, p=[0.7, 0.2, 0.08, 0.02])
    return true, np.where(rng.random(500) < 0.6, true, rng.integers(0, 4, 500))


def test_measures_of_a_table_agree_with_scikit_learn(answers):
    true, named = answers
    table = Confusion(1, metrics.confusion_matrix(true, named).astype(float))
    assert table.accuracy == pytest.approx(metrics.accuracy_score(true, named))
    assert table.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(true, named))
    assert table.macro_f1 == pytest.approx(metrics.f1_score(true, named, average="macro"))
    assert table.mcc == pytest.approx(metrics.matthews_corrcoef(true, named))
    assert table.majority_rate == pytest.approx(np.bincount(true).max() / 500)


def test_a_class_without_samples_has_no_recall():
    table = Confusion(1, np.array([[3.0, 0.0], [0.0, 0.0]]))
    assert np.isnan(table.recalls[1])
    assert table.balanced_accuracy == 1.0
    assert table.mcc == 0.0


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (3, 10), (10, 10), (40, 1000)])
def test_bounds_are_those_of_clopper_and_pearson(hits, total):
    exact = binomtest(hits, total).proportion_ci(0.95, method="exact")
    assert share_bounds(hits, total) == pytest.approx((exact.low, exact.high))


def test_nothing_counted_bounds_nothing():
    assert share_bounds(0, 0) == (0.0, 1.0)


def test_difference_of_shares():
    gap, error = share_difference(40, 100, 90, 100)
    assert gap == pytest.approx(0.5, abs=0.01)
    assert error == pytest.approx(np.sqrt(0.24 / 100 + 0.09 / 100), rel=0.05)


def test_average_precision_agrees_with_scikit_learn_on_ties_too():
    rng = np.random.default_rng(0)
    targets = rng.random(300) < 0.1
    for scores in (rng.random(300) + targets, np.round(rng.random(300) + targets, 1)):
        expected = metrics.average_precision_score(targets, scores)
        assert average_precision(scores, targets.astype(float)) == pytest.approx(expected)


@pytest.mark.parametrize("true", [0.5, 1.0, 4.0])
def test_temperature_finds_the_factor_on_calibrated_logits(true):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20000)
    targets = (rng.random(20000) < 1 / (1 + np.exp(-logits))).astype(float)
    assert temperature(true * logits, targets) == pytest.approx(true, rel=0.1)


def test_scores_are_read_as_probabilities_or_as_logits():
    record = RunRecord()
    record.append("val_loss", "val", 1, 1.0)
    record.append("val_scores", "val", 1, np.array([[0.5, 0], [0.9, 1], [np.nan, 1]]))
    logits, targets = binary_scores(record)
    assert logits == pytest.approx([0, np.log(9)], abs=1e-5)
    assert targets.tolist() == [0, 1]
    record.append("val_scores", "val", 2, np.array([[-3.0, 0], [2.0, 1], [1.0, 1]]))
    assert binary_scores(record)[0].tolist() == [-3, 2, 1]
    record.append("val_scores", "val", 3, np.array([[-3.0, 1], [2.0, 1], [1.0, 1]]))
    assert binary_scores(record) is None


def test_training_counts():
    record = RunRecord()
    assert train_classes(record) is None
    record.append("train_classes", "targets", [0, 1], [[30, 10, 0, 5], [30, 10, 0, 5]])
    record.set_fact("class_names", ["a", "b"])
    classes = train_classes(record)
    assert classes.counts.tolist() == [60, 20, 0]
    assert classes.present.tolist() == [0, 1]
    assert classes.ratio == 3
    assert classes.names == ("a", "b", "2")
    assert classes.entropy == pytest.approx(0.8113, abs=1e-4)
    assert not classes.per_epoch
    record.set_fact("run", {"train_samples": 40})
    assert train_classes(record).counts.tolist() == [30, 10, 0]
    record.set_fact("run", {"train_samples": 1000})
    assert train_classes(record).counts.tolist() == [60, 20, 0]


def test_empty_tables_are_left_out():
    record = RunRecord()
    assert confusions(record) == []
    record.append("val_loss", "val", [1, 2], [1.0, 1.0])
    record.append("val_confusion", "val", [1, 2], [np.zeros((2, 2)), np.eye(2)])
    assert [t.step for t in confusions(record)] == [2]


def uneven(counts):
    record = RunRecord()
    record.append("train_classes", "targets", 0, [*counts, 0])
    return train_classes(record).beyond_chance


def test_unevenness_beyond_chance_is_that_of_chi_square():
    rng = np.random.default_rng(0)
    drawn = [uneven(rng.multinomial(1000, np.full(10, 0.1))) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(0, abs=0.15)
    assert np.std(drawn) == pytest.approx(1, abs=0.15)
    assert uneven([12, 4]) == pytest.approx((4.0 - 1) / 2**0.5)
    assert uneven([120, 40]) == pytest.approx((40.0 - 1) / 2**0.5)
    assert uneven([12, 4, 0, 0]) == pytest.approx(uneven([12, 4]))  # of the classes that occur
    assert np.isfinite(uneven([9, 0]))
