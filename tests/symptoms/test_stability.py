import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.stability import churn, churn_figure, importance, small_changes

ROW = [0.1, 0.5, 0.6, 0.01, 0.9, 0.02, 1.5, 3.0, 64]


def test_small_changes_by_name():
    record = RunRecord()
    assert small_changes(record) is None
    record.append("small_changes", "val", 70, ROW)
    found = small_changes(record)
    assert (found.step, found.samples) == (70, 64)
    shown = found.size, found.loss, found.noisy, found.noisy_error, found.against, found.against_error
    assert shown == pytest.approx(ROW[:6])
    assert (found.gain, found.gain_against) == (1.5, 3.0)


def test_what_is_not_finite_says_nothing():
    record = RunRecord()
    record.append("small_changes", "val", 70, [*ROW[:6], np.nan, np.nan, 64])
    assert small_changes(record) is None


def test_importance_by_name():
    record = RunRecord()
    assert importance(record) is None
    record.append("input_importance", "train", 70, [20, 5, 0.4, 256])
    found = importance(record)
    assert (found.inputs, found.needed, found.samples, found.share) == (20, 5, 256, 0.25)
    assert found.alike == pytest.approx(0.4)


def test_churn_of_the_last_passes_of_the_primary_stream():
    record = RunRecord()
    assert churn(record) is None
    assert churn_figure(record) is None
    for n, share in enumerate([0.9, 0.9, 0.1, 0.2, 0.3, 0.4, 0.5]):
        record.append("val_churn", "val", 10 * (n + 2), share)
        record.append("val_churn", "a", 10 * (n + 2), 0.0)
    record.set_fact("validation", {"val": {"primary": True}, "a": {"primary": False}})
    found = churn(record)
    assert (found.stream, found.step, found.passes) == ("val", 80, 5)
    assert found.share == pytest.approx(0.3)
    figure = churn_figure(record)
    assert figure.lines.keys() == {"a", "val"}
    assert [step for step, _ in figure.lines["val"]] == list(range(20, 90, 10))
