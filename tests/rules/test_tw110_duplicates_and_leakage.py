import numpy as np
import pytest

from audited import asked, found, part, split
from trainwatch.auditing.measures import duplicates, near
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw110_duplicates_and_leakage import DuplicatesAndLeakage


def record_of(copies=0, against=0, alike=None, leaked=0, recur=None, twins=0, n=1000, near_leaked=None):
    """A training part with some copies, and 1,000 validation samples of which some are in it."""
    record = RunRecord()
    record.append("duplicates", "train", 0, [n, copies if alike is None else alike, copies, against, 0.0])
    record.append("leaked", "val", 0, [1000, leaked if recur is None else recur, leaked, n, twins])
    if near_leaked is not None:
        record.append("near_duplicates", "val", 0, [1000, near_leaked, near_leaked, 9.0])
    pairs = {"train": [[3, 70, False], [4, 71, against > 0]], "leaked": [[5, 6, False]]}
    record.set_fact("duplicate_pairs", pairs)
    record.set_fact("near_duplicate_pairs", {"val": [[9, "train", 2]]})
    return record


def verdict(record, **thresholds):
    return list(DuplicatesAndLeakage(**thresholds).check(record))


@pytest.mark.parametrize(
    ("how", "severity"),
    [
        ({"leaked": 20}, Severity.WARNING),
        ({"leaked": 11}, Severity.WARNING),
        ({"leaked": 8}, Severity.INFO),
        ({"copies": 40}, Severity.WARNING),
        ({"copies": 25}, Severity.INFO),
        ({"copies": 12, "against": 12}, Severity.WARNING),
        ({"copies": 12, "against": 8}, Severity.INFO),
        ({"near_leaked": 30}, Severity.WARNING),
        ({"recur": 200, "twins": 100}, Severity.WARNING),
        ({"leaked": 6, "recur": 400, "twins": 100}, Severity.WARNING),
        ({"recur": 60}, Severity.WARNING),
    ],
)
def test_it_warns_where_a_bound_is_beyond_its_threshold(how, severity):
    (found,) = verdict(record_of(**how))
    assert found.severity == severity
    assert found.evidence
    assert (found.margin > 0) == (severity == Severity.WARNING)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"alike": 600},
        {"recur": 600, "twins": 600},
        {"recur": 640, "twins": 600},
        {"recur": 130, "twins": 100, "n": 1000},
        {"recur": 160, "twins": 100},  # by 2.7 standard errors
        {"recur": 40},  # by 0.04, which is 3.1 standard errors above 0.02
        {"near_leaked": 0},
    ],
)
def test_rows_that_recur_by_chance_are_no_copies(how):
    assert verdict(record_of(**how)) == []


@pytest.mark.parametrize(
    ("how", "thresholds"),
    [
        ({"leaked": 20}, {"leaked": 0.1}),
        ({"copies": 40}, {"copied": 0.1}),
        ({"copies": 12, "against": 12}, {"against": 0.1}),
        ({"recur": 400, "twins": 100}, {"excess": 0.5}),
        ({"recur": 400, "twins": 100}, {"errors": 40.0}),
    ],
)
def test_each_threshold_can_silence_it(how, thresholds):
    assert [d for d in verdict(record_of(**how), **thresholds) if d.severity > Severity.INFO] == []


def test_copies_that_are_many_are_told_before_those_that_recur():
    (many,), (few,) = (verdict(record_of(leaked=n, recur=400, twins=100)) for n in (20, 6))
    assert many.summary.startswith("20 of 1000 validation samples")
    assert few.summary.startswith("validation samples recur in training by")


def test_it_names_places_and_what_to_do():
    leak, copies = verdict(record_of(leaked=20, copies=40, against=10))
    assert "6 (training 5)" in leak.evidence[0].note
    assert [r.id for r in leak.remedies] == ["remove-leaked", "split-anew"]
    assert "20 of x_val" in leak.remedies[0].how
    assert "71 is 4, with another target" in copies.evidence[0].note
    assert [r.id for r in copies.remedies] == ["clean-data", "drop-duplicates"]
    assert [r.id for r in verdict(record_of(copies=40))[0].remedies] == ["drop-duplicates"]


def test_it_abstains_where_samples_were_not_compared():
    with pytest.raises(NotChecked, match="not compared"):
        verdict(RunRecord())


def categories(seed, features, values, n=600):
    return np.random.default_rng(seed).integers(0, values, (n, features)).astype(float)


@pytest.mark.parametrize(("features", "values"), [(1, 5), (4, 3), (8, 2), (10, 2)])
def test_a_table_of_few_categories_has_no_copies(features, values):
    x = categories(0, features, values)
    y = np.random.default_rng(1).integers(0, 2, len(x))
    record, report = asked([part("train", x[:400], y[:400]), part("val", x[400:], y[400:])], duplicates)
    assert record.latest("duplicates", "train")[1][1] > 50
    assert report.diagnoses == ()


def test_one_hot_columns_and_a_default_row_have_none_either():
    draw = np.random.default_rng(0)
    hot = np.concatenate([np.eye(4)[draw.integers(0, 4, 600)] for _ in range(3)], 1)
    assert asked([part("train", hot)], duplicates)[1].diagnoses == ()
    rows = np.where(draw.random((600, 1)) < 0.3, 0.0, draw.standard_normal((600, 10)))
    assert asked([part("train", rows)], duplicates)[1].diagnoses == ()


def test_a_leak_among_categories_stands_out_from_chance():
    x = categories(0, 6, 4, 1200)
    train, val = x[:800], x[800:]
    _, report = asked([part("train", np.r_[train, val[:200]]), part("val", val)], duplicates)
    assert found(report) == ["TW110"]
    assert asked([part("train", train), part("val", val)], duplicates)[1].diagnoses == ()


def test_blank_images_are_no_copies():
    x, _, y, _ = split("digits")
    x[:100] = 0
    record, report = asked([part("train", x, y)], duplicates)
    assert record.latest("duplicates", "train")[1][4] == 100
    assert report.diagnoses == ()


@pytest.mark.parametrize("seed", range(10))
def test_random_splits_of_real_images_share_nothing(seed):
    x, xv, y, yv = split("digits", seed)
    assert asked([part("train", x, y), part("val", xv, yv)], duplicates)[1].diagnoses == ()


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_scale_does_not_count(factor):
    x, xv, _, _ = split("breast_cancer")
    x = np.r_[x, xv[:14]]
    (leak,) = asked([part("train", x * factor), part("val", xv * factor)], duplicates)[1].diagnoses
    assert "14 of 143" in leak.summary


def test_signs_of_zero_and_nan_are_no_difference():
    x = np.random.default_rng(0).standard_normal((100, 6))
    x[0, :2] = [0.0, np.nan]
    again = x[:1].copy()
    again[0, 0] = -0.0
    (d,) = asked([part("train", np.r_[x, again])], duplicates)[1].diagnoses
    assert "100 is 0" in d.evidence[0].note


def test_contradictions_in_a_regression():
    x, _, y, _ = split("diabetes")
    _, report = asked([part("train", np.r_[x, x[:10]], np.r_[y, y[:10] + 1])], duplicates)
    assert "20 have one with another target" in report.diagnoses[0].summary


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_near_duplicates_are_found_on_request_alone(name):
    x, xv, _, _ = split(name)
    draw = np.random.default_rng(0).standard_normal
    noisy = xv[:15] + 0.01 * x.std(0) * draw(xv[:15].shape)
    parts = [part("train", np.r_[x, noisy]), part("val", xv)]
    assert asked(parts, duplicates)[1].diagnoses == ()
    record, report = asked(parts, duplicates, near, near=True)
    assert found(report) == ["TW110"]
    assert "almost equal to training samples" in report.diagnoses[0].summary
    assert record.latest("near_duplicates", "val")[1][2] >= 14
    sound, _ = asked([part("train", x), part("val", xv)], duplicates, near, near=True)
    assert sound.latest("near_duplicates", "val")[1][2] <= 1


def test_copies_within_validation_are_no_leak():
    x, xv, _, _ = split("wine")
    record, report = asked([part("train", x), part("val", np.r_[xv, xv[:20]])], duplicates)
    assert record.latest("leaked", "val")[1].tolist() == [65, 0, 0, 133, 0]
    assert [d.where for d in report.diagnoses] == [("validation inputs",)]
    assert "copies of others" in report.diagnoses[0].summary


def test_near_duplicates_within_training_are_no_leak():
    x, xv, _, _ = split("breast_cancer")
    noisy = x[:15] + 0.01 * x.std(0) * np.random.default_rng(0).standard_normal(x[:15].shape)
    parts = [part("train", np.r_[x, noisy]), part("val", xv)]
    record, report = asked(parts, duplicates, near, near=True)
    assert [d.where for d in report.diagnoses] == [("training inputs",)]
    assert record.latest("near_duplicates", "train")[1][2] == 0
