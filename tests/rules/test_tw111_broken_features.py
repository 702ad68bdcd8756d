import numpy as np
import pytest

from audited import SETS, asked, found, loaded, part, split
from trainwatch.auditing.measures import alone, features
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw111_broken_features import BrokenFeatures

COLUMNS = ("entries", "nans", "infinities", "least", "most", "mean", "sd", "distinct", "code", "coded", "numbered",
           "beyond")  # fmt: skip
SOUND = dict(zip(COLUMNS, [1000, 0, 0, -3, 3, 0, 1, 900, np.nan, np.nan, 0, 0], strict=True))


def record_of(*changed, val=None, skill=None, same=(), count=10):
    """Sound features, of which the first ones are changed, in training and in validation."""
    record = RunRecord()
    for split_, some in (("train", changed), ("val", val)):
        if some is not None:
            rows = [{**SOUND, **how} for how in (*some, *[{}] * (count - len(some)))]
            record.append("feature_stats", split_, 0, [[row[c] for c in COLUMNS] for row in rows])
    if skill is not None:
        known = np.r_[skill, np.full(count - len(skill), 0.3)]
        record.append("feature_alone", "train", 0, np.stack([known, np.isin(np.arange(count), same)], 1))
    return record


def verdict(record, **thresholds):
    return list(BrokenFeatures(**thresholds).check(record))


CONSTANT = {"least": 2, "most": 2, "sd": 0}
WARNED = {
    "NaN": ({"nans": 1}, "1 NaN entries in feature 0"),
    "infinite": ({"infinities": 3}, "3 infinite entries"),
    "code": ({"code": -999, "coded": 30}, "feature 0 is -999 in 30 samples"),
}


@pytest.mark.parametrize(("how", "words"), WARNED.values(), ids=WARNED)
def test_what_is_no_number_or_a_code_for_none(how, words):
    (d,) = verdict(record_of(how))
    assert d.severity == Severity.WARNING
    assert words in d.summary
    assert d.where == ("feature 0",)
    assert d.remedies[0].id == "fill-missing"
    assert "columns = [0]" in d.remedies[0].how


def test_sound_features_are_silent():
    assert verdict(record_of(val=[], skill=[0.9, 0.8])) == []


def test_validation_is_looked_at_too():
    (d,) = verdict(record_of(val=[{"nans": 2}]))
    assert "2 NaN" in d.summary


def test_of_a_handful_of_samples_nothing_is_constant():
    few = {**CONSTANT, "entries": 9}
    assert verdict(record_of(*[few] * 10)) == []
    assert len(verdict(record_of(*[{**few, "entries": 10}] * 10))) == 1


def test_numbers_that_single_precision_takes_for_infinite_are_so():
    x = np.random.default_rng(0).normal(size=(50, 3))
    x[4, 1], x[5, 2] = 1e39, 1e38
    record, _ = asked([part("train", x)], features)
    (d,) = verdict(record)
    assert d.summary == "1 infinite entries in feature 1"
    assert d.evidence[0].note


def test_a_constant_is_a_remark_and_most_features_a_warning():
    (d,) = verdict(record_of(CONSTANT))
    assert d.severity == Severity.INFO
    assert d.remedies[0].id == "drop-features"
    (d,) = verdict(record_of(*[CONSTANT] * 6))
    assert d.severity == Severity.WARNING
    (d,) = verdict(record_of(*[CONSTANT] * 6), constant=0.7)
    assert d.severity == Severity.INFO


@pytest.mark.parametrize(
    ("beyond", "thresholds", "severity"),
    [
        (500, {}, Severity.WARNING),
        (40, {}, Severity.INFO),
        (60, {}, Severity.WARNING),
        (500, {"changes": 0.6}, Severity.INFO),
        (60, {"chance": 1e-30}, Severity.INFO),
    ],
)
def test_a_feature_that_changes_in_validation_alone(beyond, thresholds, severity):
    (d,) = verdict(record_of(CONSTANT, val=[{"beyond": beyond}]), **thresholds)
    assert len(d.where) == 1
    assert d.severity == severity


def test_few_samples_of_validation_may_differ_by_chance():
    (d,) = verdict(record_of({**CONSTANT, "entries": 60}, val=[{"entries": 20, "beyond": 3}]))
    assert d.severity == Severity.INFO


@pytest.mark.parametrize(("beyond", "severity"), [(13, Severity.INFO), (14, Severity.WARNING)])
def test_a_chance_below_one_in_a_thousand_is_none(beyond, severity):
    """One of ten features, half of whose samples are of validation: 10 / 2^13 and 10 / 2^14."""
    (d,) = verdict(record_of({**CONSTANT, "entries": 100}, val=[{"entries": 100, "beyond": beyond}]))
    assert d.severity == severity


def test_of_several_constants_those_that_change_in_validation_are_named():
    (d,) = verdict(record_of(CONSTANT, CONSTANT, val=[{}, {"beyond": 500}]))
    assert d.where == ("feature 1",)
    assert "but not in validation" in d.summary
    assert d.evidence[0].value == 0.5


@pytest.mark.parametrize(
    ("skill", "same", "fires"),
    [
        ([1.0, 0.5], (0,), True),
        ([0.99, 0.8], (), True),
        ([0.99, 0.92], (), False),
        ([0.99, 0.99], (), False),
        ([1.0, 1.0], (0, 1), True),
        ([0.97, 0.2], (), False),
    ],
)
def test_a_feature_that_tells_the_target_alone(skill, same, fires):
    assert bool(verdict(record_of(skill=skill, same=same))) == fires
    if fires and not same:
        assert verdict(record_of(skill=skill), alone=0.995) == []
        assert verdict(record_of(skill=skill), others=0.7) == []


def test_the_target_itself_is_told_however_much_others_say():
    (d,) = verdict(record_of(skill=[1.0, 0.95], same=(0,)))
    assert d.where == ("feature 0",)


def test_skill_that_was_measured_of_other_features_is_left_out():
    record = record_of()
    record.append("feature_alone", "train", 0, [[1.0, 1.0], [0.2, 0.0]])
    assert verdict(record) == []


def test_row_numbers_are_a_remark():
    (d,) = verdict(record_of({"numbered": 1, "distinct": 1000}))
    assert d.severity == Severity.INFO
    assert "number of its own" in d.summary


def test_names_are_those_of_the_columns():
    record = record_of({"nans": 1})
    record.set_fact("feature_names", [f"column {i}" for i in range(10)])
    record.set_fact("not_numbers", {"train": {"0": [3, 4]}})
    (d,) = verdict(record)
    assert d.where == ("column 0",)
    assert d.evidence[0].note == "samples 3, 4"


def test_it_abstains_where_features_were_not_looked_at():
    with pytest.raises(NotChecked):
        verdict(RunRecord())


@pytest.mark.parametrize("name", SETS)
def test_real_tables_are_sound(name):
    assert found(asked([part("train", *loaded(name, False))], features, alone)[1]) == []


def changed(name, how):
    x, _, y, _ = split(name, images=False)
    x = x.astype(float)
    how(x, y)
    report = asked([part("train", x, y)], features, alone)[1]
    return [d for d in report.diagnoses if d.code == "TW111" and d.severity > Severity.INFO]


def test_all_of_a_feature_missing():
    (d,) = changed("wine", lambda x, y: x[:, 2].fill(np.nan))
    assert d.evidence[0].value == 1.0


@pytest.mark.parametrize(("code", "column"), [(-999.0, 0), (-9999.0, 2), (1e6, 2), (-999.0, 1)])
@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_codes_for_what_is_missing(name, code, column):
    def how(x, y):
        x[::15, column] = code

    (d,) = changed(name, how)
    assert f"{code:g}" in d.summary


def test_one_value_far_outside_is_an_outlier_and_no_code():
    def how(x, y):
        x[0, 1] = -999.0

    assert changed("wine", how) == []


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_codes_do_not_depend_on_the_unit(factor):
    def how(x, y):
        x *= factor
        x[::15, 1] = 1e3 * np.abs(x).max()

    assert len(changed("breast_cancer", how)) == 1


def test_heaps_at_zero_and_counts_are_no_codes():
    draw = np.random.default_rng(0)
    x = np.stack([np.where(draw.random(800) < 0.5, 0, draw.normal(100, 5, 800)), draw.poisson(2, 800),
                  np.round(draw.lognormal(3, 1, 800))], 1)  # fmt: skip
    assert found(asked([part("train", x)], features)[1]) == []


def test_class_numbers_and_their_negative_are_the_target():
    for sign in (1, -1):
        (d,) = changed("wine", lambda x, y, sign=sign: np.copyto(x[:, 0], sign * y))
        assert "under another name" in d.summary


def test_naming_the_most_frequent_class_is_no_skill():
    draw = np.random.default_rng(0)
    x, y = draw.standard_normal((600, 4)), (np.arange(600) % 100 == 0).astype(int)
    record, report = asked([part("train", x, y)], features, alone)
    assert record.latest("feature_alone", "train")[1][:, 0].max() < 0.1
    assert report.diagnoses == ()


def test_a_line_of_the_target_in_a_regression():
    (d,) = changed("diabetes", lambda x, y: np.copyto(x[:, 0], 3 - 2 * y))
    assert "under another name" in d.summary


@pytest.mark.parametrize("images", [np.uint8, np.float32])
def test_dark_borders_of_images_are_no_fault(images):
    x = loaded("digits")[0].astype(images)
    record, report = asked([part("train", x)], features)
    assert report.diagnoses == ()
    assert record.latest("feature_stats", "train")[1].shape == (1, 12)


def test_a_channel_without_content_is_remarked_on():
    x = loaded("digits")[0]
    (d,) = asked([part("train", np.concatenate([x, np.ones_like(x)], -1))], features)[1].diagnoses
    assert d.severity == Severity.INFO
    assert d.where == ("channel 1",)


def test_statistics_are_those_of_numpy():
    x = np.random.default_rng(0).normal(1e4, 1, (500, 3))
    x[3, 1] = np.nan
    row = asked([part("train", x)], features)[0].latest("feature_stats", "train")[1]
    assert row[:, 1].tolist() == [0, 1, 0]
    np.testing.assert_allclose(row[:, 5], np.nanmean(x, 0), rtol=1e-6)
    np.testing.assert_allclose(row[:, 6], np.nanstd(x, 0), rtol=1e-4)
