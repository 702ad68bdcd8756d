import numpy as np
import pytest
from synthetic import class_record, confusion

from trainwatch.rules import NotChecked
from trainwatch.rules.base import MODEST
from trainwatch.rules.tw101_class_imbalance import ClassImbalance
from trainwatch.rules.tw102_majority_collapse import MajorityCollapse

ALL_MAJOR = np.array([[180, 0], [60, 0]])


def verdict(record, **thresholds):
    return list(MajorityCollapse(**thresholds).check(record))


@pytest.mark.parametrize("counts", [(700, 300), (900, 100), (9900, 100)])
@pytest.mark.parametrize("hits", [0, 3])
def test_fires(counts, hits):
    table = ALL_MAJOR + np.array([[0, 0], [-hits, hits]])
    (found,) = verdict(class_record(counts, [table, table]))
    assert found.margin > 0
    assert found.where == ("0",)


def test_fires_over_many_classes():
    table = np.zeros((10, 10))
    table[:, 4] = 30
    counts = np.full(10, 50)
    counts[4] = 500
    (found,) = verdict(class_record(counts, [table, table]))
    assert found.where == ("4",)


SILENT = {
    "balanced": ([500, 500], [ALL_MAJOR] * 2),
    "just-below-imbalance": ([660, 340], [ALL_MAJOR] * 2),
    "minority-found": ([900, 100], [confusion([180, 60], [0.95, 0.8])] * 2),
    "recall-too-high-for-the-bound": ([9900, 100], [np.array([[9900, 0], [60, 40]])] * 2),
    "too-few-minority-samples": ([900, 100], [np.array([[180, 0], [3, 0]])] * 2),
    "predictions-spread": ([900, 100], [np.array([[150, 30], [58, 2]])] * 2),
    "recovers": ([900, 100], [ALL_MAJOR, ALL_MAJOR, confusion([180, 60], [0.95, 0.8])]),
    "names-the-minority": ([900, 100], [np.array([[0, 180], [0, 60]])] * 2),
    "one-class": ([900, 0], [ALL_MAJOR] * 2),
}


@pytest.mark.parametrize(("counts", "tables"), SILENT.values(), ids=SILENT)
def test_stays_silent(counts, tables):
    assert verdict(class_record(counts, tables)) == []


def weighing(counts, table, *, weight=None, sampler="RandomSampler"):
    record = class_record(counts, [table, table])
    record.set_fact("loss", {"cross_entropy": {"function": "cross_entropy", "arguments": {"weight": weight}}})
    record.set_fact("loaders", {"train": {"sampler": sampler}})
    return record


def test_under_weights_it_may_be_any_class():
    minor = np.array([[3, 177], [1, 59]])
    for weights in ({"weight": [1.0, 30.0]}, {"sampler": "WeightedRandomSampler"}):
        (found,) = verdict(weighing([500, 500], ALL_MAJOR, **weights))
        assert found.where == ("0",)
        (found,) = verdict(weighing([750, 250], minor, **weights))
        assert found.where == ("1",)
        assert "98.3% of the validation predictions are class 1; of all other classes 3 of 180" in found.summary
    assert verdict(weighing([500, 500], ALL_MAJOR)) == verdict(weighing([750, 250], minor)) == []
    spread = np.array([[20, 160], [1, 59]])
    assert verdict(weighing([750, 250], spread, weight=[1.0, 30.0])) == []


def test_waits_for_a_second_pass():
    with pytest.raises(NotChecked, match="1 validation passes"):
        verdict(class_record([900, 100], [ALL_MAJOR]))


@pytest.mark.parametrize(("threshold", "value"), [("imbalance", 9.5), ("majority_share", 1.01), ("min_passes", 3)])
def test_each_threshold_can_silence_it(threshold, value):
    tables = [confusion([180, 60], [0.95, 0.8]), ALL_MAJOR, ALL_MAJOR]
    assert verdict(class_record([900, 100], tables))
    assert not verdict(class_record([900, 100], tables), **{threshold: value})


def test_onset_is_the_first_pass_of_the_present_collapse():
    good = confusion([180, 60], [0.95, 0.8])
    (late,) = verdict(class_record([900, 100], [ALL_MAJOR, good, ALL_MAJOR, ALL_MAJOR]))
    assert late.onset_step == 30
    (early,) = verdict(class_record([900, 100], [ALL_MAJOR] * 3))
    assert early.onset_step == 10


def test_message():
    (found,) = verdict(class_record([900, 100], [ALL_MAJOR] * 2))
    assert found.summary == (
        "100.0% of the validation predictions are class 0; of all other classes 0 of 60 samples are recognised"
    )
    assert found.evidence[1].value == pytest.approx(0.0596, abs=1e-3)
    assert found.evidence[1].threshold == 0.5
    assert found.margin == pytest.approx(0.5 / (found.evidence[1].value / 1.96))


@pytest.mark.parametrize(("loss", "modest"), [(0.69, True), (0.1, False)])
def test_where_nothing_was_learned_whatever_kept_the_net_from_it_comes_first(loss, modest):
    criterion = {"function": "cross_entropy", "reduction": "mean", "arguments": {"reduction": "mean"}, "classes": 2}
    record = class_record([900, 100], [ALL_MAJOR] * 2, loss={"cross_entropy": criterion})
    record.append("train_loss", "cross_entropy", np.arange(1, 21), np.full(20, loss))
    (found,) = verdict(record)
    assert (found.margin == MODEST) == modest
    assert found.margin >= MODEST


@pytest.mark.parametrize(("rare", "offered"), [(4, True), (8, False)])
def test_anomaly_detection_is_offered_where_very_rare(rare, offered):
    (found,) = verdict(class_record([1000, rare], [ALL_MAJOR] * 2))
    assert ("reframe-as-anomaly" in {r.id for r in found.remedies}) is offered


def test_samples_of_several_labels_are_not_judged():
    record = class_record([900, 100], [ALL_MAJOR] * 2)
    record._series["train_classes"] = {"labels": record.series("train_classes", "targets")}
    with pytest.raises(NotChecked, match="single class"):
        verdict(record)


def test_imbalance_explains_it():
    record = class_record([900, 100], [ALL_MAJOR] * 2)
    (cause,), (effect,) = ClassImbalance().check(record), verdict(record)
    assert ClassImbalance.explains["TW102"](cause, effect)
