import numpy as np
import pytest
from sklearn import metrics

from trainwatch.record import RunRecord
from trainwatch.symptoms.recognition import recognitions, reported


def labelled(logits, targets):
    """A record of one pass over several labels."""
    record = RunRecord()
    record.append("val_loss", "val", 5, 1.0)
    record.append("val_scores", "val", 5, np.stack([logits, targets], -1))
    return record


def test_measures_of_labels_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    targets = (rng.random((300, 3)) < [0.1, 0.3, 0.6]).astype(float)
    logits = rng.standard_normal((300, 3)) + 2 * targets - 1
    named = logits > 0
    (found,) = recognitions(labelled(logits, targets))
    assert found.accuracy == pytest.approx((named == targets).mean())
    assert found.constant == pytest.approx(np.maximum(targets.mean(0), 1 - targets.mean(0)).mean())
    each = list(zip(targets.T, named.T, logits.T, strict=True))
    assert found.balanced == pytest.approx(np.mean([metrics.balanced_accuracy_score(t, n) for t, n, _ in each]))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(targets, named, average="macro"))
    assert found.mcc == pytest.approx(np.mean([metrics.matthews_corrcoef(t, n) for t, n, _ in each]))
    assert found.pr_auc == pytest.approx(np.mean([metrics.average_precision_score(t, s) for t, _, s in each]))
    assert found.hits.tolist() == (named * targets).sum(0).tolist()
    assert found.totals.tolist() == targets.sum(0).tolist()
    assert found.others.tolist() == (1 - targets).sum(0).tolist()


def test_a_label_without_positives_is_left_out():
    targets = np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    logits = np.array([[-1.0, 1.0], [-1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    (found,) = recognitions(labelled(logits, targets))
    assert found.totals.tolist() == [0, 2]
    assert (found.accuracy, found.constant, found.macro_f1, found.mcc) == (1.0, 0.5, 1.0, 1.0)


def test_nothing_was_predicted():
    assert recognitions(RunRecord()) == []


def test_several_classes_come_from_the_tables():
    record = RunRecord()
    record.append("val_loss", "val", [1, 2], [1.0, 1.0])
    record.append("val_confusion", "val", [1, 2], [[[90, 0], [10, 0]], [[88, 2], [4, 6]]])
    first, last = recognitions(record)
    assert (first.accuracy, first.constant, first.pr_auc) == (0.9, 0.9, None)
    assert last.hits.tolist() == [88, 6]
    assert last.others.tolist() == [90, 90]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("accuracy", "accuracy"),
        ("val_acc", "accuracy"),
        ("val/Accuracy", "accuracy"),
        ("valid-acc-top1", "accuracy"),
        ("acc", "accuracy"),
        ("val_accuracy_epoch", "accuracy"),
        ("train_acc", ""),
        ("accumulated", ""),
        ("val_loss", ""),
        ("balanced_accuracy", "fair"),
        ("val_F1", "fair"),
        ("val_auroc", "fair"),
        ("recall_macro", "fair"),
        ("mAP", "fair"),
        ("map_location_seconds", "fair"),
        ("train_f1", ""),
    ],
)
def test_metrics_are_told_by_their_names(name, kind):
    record = RunRecord()
    record.append("metric", name, [1, 2], [0.25, 0.5])
    found = reported(record)
    assert found.accuracies == ({name: 0.5} if kind == "accuracy" else {})
    assert found.fair == ((name,) if kind == "fair" else ())


def test_percentages_and_values_that_are_not_finite():
    record = RunRecord()
    record.append("metric", "acc", 1, 97.5)
    record.append("metric", "val_acc", 1, np.inf)
    assert reported(record).accuracies == {"acc": 0.975}


@pytest.mark.parametrize("value", [0.5, 0.0, np.nan])
def test_numbers_that_are_no_labels_are_not_recognised(value):
    """Pixels between 0 and 1 under a loss of labels; numpy is not to warn of empty slices either."""
    assert recognitions(labelled(np.zeros((20, 3)), np.full((20, 3), value))) == []
