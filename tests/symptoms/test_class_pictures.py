import numpy as np
import pytest
from sklearn import metrics

from trainwatch.diagnosis import to_plain
from trainwatch.figures import figure_from_plain
from trainwatch.record import RunRecord
from trainwatch.reports.drawing import svg
from trainwatch.symptoms.class_pictures import LINES, POINTS, class_pictures_of


def with_scores(*labels, **facts):
    record = RunRecord()
    record.append("val_loss", "val", 9, 1.0)
    record.append("val_scores", "val", 9, np.stack(labels, 1))
    for topic, value in facts.items():
        record.set_fact(topic, value)
    return record


def drawn(shift, samples=500, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.random(samples) < 0.3
    return np.stack([rng.standard_normal(samples) + 2 * targets + shift, targets], 1)


def test_the_curve_is_drawn_with_both_thresholds():
    pairs = drawn(-3)
    figure = class_pictures_of(with_scores(pairs, class_names=["calm", "storm"]))["precision_recall"]
    assert figure.title == "Precision and recall of storm at every threshold, step 9"
    curve, half, best = figure.lines.values()
    scores, targets = pairs.T
    ((recall, precision, _),) = half
    assert recall == pytest.approx(metrics.recall_score(targets, scores > 0))
    assert precision == pytest.approx(metrics.precision_score(targets, scores > 0))
    true = list(zip(*metrics.precision_recall_curve(targets, scores)[1::-1], strict=True))
    assert all(any(np.allclose(point[:2], pair) for pair in true) for point in curve)
    assert len(curve) <= POINTS
    assert curve[-1][0] == 1
    threshold = float(list(figure.lines)[2].partition(":")[0])
    named = 1 / (1 + np.exp(-scores)) > threshold
    assert metrics.recall_score(targets, named) == pytest.approx(best[0][0], abs=0.02)  # three digits of it are shown
    f1 = metrics.f1_score(targets, scores > 0)
    assert f"F1 {f1:.3f}" in list(figure.lines)[1]
    assert 2 / (1 / best[0][0] + 1 / best[0][1]) > f1


def test_of_several_labels_that_which_gains_most_is_drawn():
    record = with_scores(drawn(-1, seed=1), drawn(-4, seed=2), drawn(-1, seed=3), class_names=["a", "b", "c"])
    assert "recall of b" in class_pictures_of(record)["precision_recall"].title


def with_tables(recalls):
    record = RunRecord()
    for step, row in enumerate(recalls):
        hits = np.round(20 * np.asarray(row))
        record.append("val_loss", "val", step, 1.0)
        record.append("val_confusion", "val", step, np.diag(hits) + np.roll(np.diag(20 - hits), 1, 1))
    return record


def test_recall_over_the_passes():
    figure = class_pictures_of(with_tables([[0.5, 0.0], [0.9, 0.2]]))["recall"]
    assert figure.lines == {"class 0": ((0, 0.5), (1, 0.9)), "class 1": ((0, 0.0), (1, 0.2))}
    assert class_pictures_of(with_tables([[0.5, 0.0]])) == {}


def test_of_many_classes_those_found_least_are_drawn():
    last = np.linspace(1, 0.4, 13)
    figure = class_pictures_of(with_tables([np.zeros(13), last]))["recall"]
    assert list(figure.lines) == [f"class {i}" for i in range(13 - LINES, 13)]
    assert "8 of 13" in figure.title


def test_nothing_was_recorded():
    assert class_pictures_of(RunRecord()) == {}
    assert class_pictures_of(with_scores(drawn(0, 3)[:0])) == {}


def test_they_survive_json_and_can_be_drawn():
    figures = class_pictures_of(with_scores(drawn(-1))) | class_pictures_of(with_tables([[0.5, 0.1], [0.9, 0.2]]))
    assert sorted(figures) == ["precision_recall", "recall"]
    for name, figure in figures.items():
        plain = {**to_plain(figure), "kind": figure.kind}
        again = figure_from_plain(plain)
        assert to_plain(again) == to_plain(figure)
        assert svg(again, name).startswith("<svg")
