import numpy as np
import pytest
from synthetic import curve, fit_record

from trainwatch.config import Settings
from trainwatch.diagnosis import Severity
from trainwatch.engine import judge
from trainwatch.rules import NotChecked
from trainwatch.rules.tw203_trained_past_best import TrainedPastBest

HOLDS = np.full(20, 0.9)


def verdict(record, **thresholds):
    return list(TrainedPastBest(**thresholds).check(record))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("climb", [0.03, 0.1])
def test_a_rise_with_training_is_a_warning_of_its_own(climb, scale):
    (found,) = verdict(fit_record(curve(climb=climb), training=curve(climb=climb), scale=scale, noise=0.005))
    assert found.severity == Severity.WARNING
    assert 60 <= found.onset_step <= 100
    assert found.margin > 0
    assert [r.id for r in found.remedies] == ["early-stopping", "lower-final-rate"]
    assert found.evidence[1].value == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize(("accuracy", "cause"), [(None, "TW201"), (HOLDS, "TW202")])
def test_where_training_falls_it_is_part_of_the_cause(accuracy, cause):
    record = fit_record(curve(), accuracy=accuracy)
    (found,) = verdict(record)
    assert found.severity == Severity.INFO
    report = judge(record, Settings(strict=True, select=("TW2",)))
    (top,) = report.findings()
    assert top.code == cause
    assert [c.code for c in top.consequences] == ["TW203"]


def test_without_a_training_loss_it_is_a_warning():
    record = fit_record(curve())
    del record._series["train_loss"]
    (found,) = verdict(record)
    assert found.severity == Severity.WARNING


@pytest.mark.parametrize(("best", "said"), [(16, True), (17, False)])
def test_three_passes_must_come_after_the_best(best, said):
    assert bool(verdict(fit_record(curve(best=best, climb=0.3), training=curve(best=best, climb=0.3)))) is said


SILENT = {
    "keeps-falling": {"validation": curve(best=19)},
    "flat": {"validation": curve(climb=0.0), "noise": 0.02},
    "rise-too-small": {"validation": curve(climb=0.002)},
    "rise-within-noise": {"validation": curve(climb=0.01), "noise": 0.2},
    "recovers": {"validation": np.r_[curve(length=15), 0.5, 0.49, 0.48, 0.47, 0.46]},
    "minimum-too-recent": {"validation": curve(length=20, best=17, climb=0.3)},
}


@pytest.mark.parametrize("case", SILENT.values(), ids=SILENT)
def test_stays_silent(case):
    assert verdict(fit_record(**case, training=case["validation"])) == []


@pytest.mark.parametrize(
    ("loaded", "said"),
    [
        ({"times": 1, "last_step": 200}, False),
        ({"times": 1, "last_step": 0}, True),
        ({"times": 1, "last_step": 150}, True),
        ({"times": 40, "last_step": 200}, True),
        ({"times": 11, "last_step": 200}, True),
        ({"times": 10, "last_step": 200}, False),
    ],
    ids=["at-the-end", "at-the-start", "half-way", "at-every-pass", "at-most-passes", "at-half-of-the-passes"],
)
def test_weights_loaded_at_the_end_are_taken_for_the_best(loaded, said):
    record = fit_record(curve(), training=curve(), weights_loaded=loaded)
    assert bool(verdict(record)) == said
    memorising = fit_record(curve(), weights_loaded=loaded)
    assert bool(judge(memorising, Settings(strict=True, select=("TW201",))).findings()) == said
    sure = fit_record(curve(), accuracy=HOLDS, weights_loaded=loaded)
    assert bool(judge(sure, Settings(strict=True, select=("TW202",))).findings()) == said


def test_it_abstains():
    with pytest.raises(NotChecked, match="not ended"):
        verdict(fit_record(curve(), run={"steps": 200, "finished": False}))
    with pytest.raises(NotChecked, match="3 whole validation pass"):
        verdict(fit_record(curve()[:3]))


@pytest.mark.parametrize(("threshold", "value"), [("min_rise", 0.9), ("min_errors", 1e4), ("min_after", 15)])
def test_each_threshold_can_silence_it(threshold, value):
    record = fit_record(curve(climb=0.05), training=curve(climb=0.05), noise=0.005)
    assert verdict(record)
    assert not verdict(record, **{threshold: value})


@pytest.mark.parametrize(("climb", "said"), [(0.0035, True), (0.0025, False)])
def test_a_fiftieth_of_the_drop_is_a_rise(climb, said):
    assert bool(verdict(fit_record(curve(climb=climb), training=curve(climb=climb)))) is said


@pytest.mark.parametrize(("noise", "said"), [(0.08, True), (0.1, False)])
def test_a_rise_counts_from_so_many_standard_errors_on(noise, said):
    made = fit_record(curve(climb=0.02), training=curve(climb=0.02), noise=noise, seed=3)
    assert bool(verdict(made)) is said
    assert bool(verdict(made, min_errors=1.6 if not said else 2.2)) is not said
