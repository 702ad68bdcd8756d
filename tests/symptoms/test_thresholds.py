import numpy as np
import pytest
from sklearn import metrics

from trainwatch.record import RunRecord
from trainwatch.symptoms.thresholds import curve_of, out_of_bag, precision_recall


def drawn(samples, rate, *, shift=0.0, apart=2.5, seed=0):
    """Logits that are calibrated, but for a shift, and targets."""
    rng = np.random.default_rng(seed)
    targets = (rng.random(samples) < rate).astype(float)
    x = rng.standard_normal(samples) + apart * targets
    return apart * x - apart**2 / 2 + np.log(rate / (1 - rate)) + shift, targets


@pytest.mark.parametrize("digits", [None, 0], ids=["all-different", "ties"])
def test_the_curve_agrees_with_scikit_learn(digits):
    scores, targets = drawn(300, 0.2)
    scores = scores if digits is None else np.round(scores, digits)
    curve = curve_of(scores, targets)
    precision, recall, _ = metrics.precision_recall_curve(targets, scores)
    assert curve.precision == pytest.approx(precision[::-1])
    assert curve.recall == pytest.approx(recall[::-1])
    for index in (0, curve.best, curve.half, len(curve.ends) - 1):
        named = scores > curve.thresholds[index]
        assert named.sum() == curve.ends[index]
        assert curve.f1[index] == pytest.approx(metrics.f1_score(targets, named, zero_division=0))
    assert curve.f1[curve.half] == pytest.approx(metrics.f1_score(targets, scores > 0))


def test_the_best_threshold_is_the_best_of_all():
    scores, targets = drawn(200, 0.3, shift=1)
    curve = curve_of(scores, targets)
    tried = [metrics.f1_score(targets, scores >= s) for s in scores]
    assert curve.f1[curve.best] == pytest.approx(max(tried))
    assert curve.probability(curve.best) == pytest.approx(1 / (1 + np.exp(-curve.thresholds[curve.best])))


def test_scores_of_a_net_that_was_thrown_off_are_probabilities_too():
    scores = np.array([-3e4, -2e3, 2e3, 3e4])
    curve = curve_of(scores, np.array([0.0, 1.0, 0.0, 1.0]))
    told = [curve.probability(i) for i in range(len(curve.thresholds))]
    assert told == sorted(told, reverse=True)
    assert (told[0], told[-1]) == (1.0, 0.0)


def test_thresholds_for_a_precision_and_a_recall_find_the_most_and_name_the_fewest():
    scores, targets = drawn(500, 0.3)
    curve = curve_of(scores, targets)
    precise, sensitive = curve.at_precision(0.9), curve.at_recall(0.9)
    assert curve.precision[precise] >= 0.9
    assert curve.recall[precise] == curve.recall[(curve.precision >= 0.9) & (curve.found > 0)].max()
    assert curve.recall[sensitive] >= 0.9 > curve.recall[sensitive - 1]
    worst = curve_of(-scores, targets)
    assert worst.at_precision(0.9) is None


@pytest.mark.parametrize("shift", [0.0, -2.0, 2.0])
def test_the_gain_is_that_on_further_samples(shift):
    """Calibrated scores gain nothing to speak of; shifted ones what a threshold gains on 200,000 samples."""
    many = curve_of(*drawn(200_000, 0.2, shift=shift, seed=1))
    estimates, errors = [], []
    for seed in range(20):
        curve = curve_of(*drawn(500, 0.2, shift=shift, seed=seed))
        gain = out_of_bag(curve)
        estimates.append(gain.value)
        errors.append(gain.error)
    true = many.f1[many.best] - many.f1[many.half]
    assert np.mean(estimates) == pytest.approx(true, abs=0.03)
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.4)


def test_the_gain_is_less_than_on_the_samples_that_the_threshold_was_chosen_on():
    optimistic, honest = [], []
    for seed in range(20):
        curve = curve_of(*drawn(150, 0.3, seed=seed))
        optimistic.append(curve.f1[curve.best] - curve.f1[curve.half])
        honest.append(out_of_bag(curve).value)
    assert np.mean(optimistic) > 0.01
    assert np.mean(honest) < 0.005


def test_scores_that_tell_nothing_gain_nothing_over_naming_every_sample():
    rng = np.random.default_rng(0)
    curve = curve_of(rng.standard_normal(400) - 9, (rng.random(400) < 0.3).astype(float))
    assert curve.f1[curve.half] == 0
    assert curve.f1[curve.best] > 0.4
    assert abs(out_of_bag(curve).value) < 0.02


def test_the_scale_of_the_scores_does_not_matter():
    scores, targets = drawn(300, 0.2, shift=-1)
    one, other = curve_of(scores, targets), curve_of(0.01 * scores, targets)
    assert out_of_bag(one) == out_of_bag(other)
    assert one.best == other.best


def test_of_a_record_labels_with_both_answers_and_known_targets_count():
    record = RunRecord()
    assert precision_recall(record) == []
    rows = np.zeros((6, 3, 2))
    rows[:, :, 0] = np.arange(6)[:, None] - 2.5
    rows[:, 0, 1] = [0, 0, 0, 1, 1, -100]  # an ignored one
    rows[:, 2, 1] = [0, 1, 0, 1, 1, 1]
    rows[0, 2, 0] = np.inf
    record.append("val_loss", "val", 7, 1.0)
    record.append("val_scores", "val", 7, rows)
    curves = precision_recall(record)
    assert [(c.label, c.step, c.positives, len(c.targets)) for c in curves] == [(0, 7, 2, 5), (2, 7, 4, 5)]
