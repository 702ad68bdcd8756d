"""Confidence comes from one table; ranks and nesting do not."""

import math
from dataclasses import dataclass

import pytest

from benchmarks.zoo.calibration import version
from trainwatch import Settings
from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.engine import judge, nest
from trainwatch.record import RunRecord
from trainwatch.rules import Rule, all_rules
from trainwatch.rules.base import MODEST
from trainwatch.rules.calibrated import CURVES, VERSION
from trainwatch.rules.confidence import FINDING, REMARK, Curve, confidence_of

MARGINS = [-2.0, 0.0, 0.3, 2.0, 9.0, 29.0, 1e3]


@dataclass(frozen=True)
class Users(Rule):
    """A rule of another package."""

    code = "TW950"
    name = "of-another-package"
    section = "§1"

    def check(self, record):
        yield self.diagnose("it is so", margin=2.0)


@pytest.mark.parametrize("code", ["TW204", "TW206", "TW950"])
@pytest.mark.parametrize("severity", list(Severity))
def test_a_larger_margin_is_never_less_sure_and_nothing_is_certain(code, severity):
    sure = [confidence_of(margin, code, severity) for margin in MARGINS]
    assert sure == sorted(sure)
    assert sure[0] > 0
    assert max(*sure, confidence_of(math.inf, code, severity)) < 1
    assert confidence_of(math.nan, code, severity) == confidence_of(0.0, code, severity)


def test_a_curve_adds_up_its_parts():
    curve = Curve(intercept=1.0, slope=0.5, fact=2.0, lapse=0.1, codes={"TW101": -1.0})
    assert curve(0.0) == pytest.approx(0.9 / (1 + math.exp(-1)))
    assert curve(math.e - 1, "TW101") == pytest.approx(0.9 / (1 + math.exp(-0.5)))
    assert curve(math.inf) == pytest.approx(0.9 / (1 + math.exp(-3))), "facts have a rate of their own"
    assert curve(1e9) == curve(30.0), "beyond some margin nothing is gained"


def test_remarks_have_a_curve_of_their_own_and_unknown_rules_what_all_have_in_common():
    (found,) = Users().check(RunRecord())
    assert found.confidence == FINDING(2.0) == confidence_of(2.0)
    assert Users().diagnose("", margin=2.0, severity=Severity.INFO).confidence == REMARK(2.0) != FINDING(2.0)
    assert confidence_of(2.0, "TW206") == FINDING(2.0, "TW206") != FINDING(2.0)


def test_the_table_is_of_one_piece_and_a_report_says_which_it_used():
    assert version(CURVES) == VERSION, "edited by hand? python -m benchmarks.zoo calibrate"
    assert set(FINDING.codes) | set(REMARK.codes) <= set(all_rules())
    assert judge(RunRecord(), Settings()).facts["calibration"] == VERSION


@pytest.mark.parametrize("confidences", [(0.2, 0.9), (0.9, 0.2)])
def test_what_comes_first_is_decided_by_margins_not_by_the_table(confidences):
    pair = [
        Diagnosis(code, "a", Severity.WARNING, "fault", margin=margin, confidence=confidence)
        for code, margin, confidence in zip(("TW105", "TW308"), (2.0, 4.0), confidences, strict=True)
    ]
    assert [d.code for d in nest(pair)] == ["TW308", "TW105"]
    far = [d.with_(margin=margin) for d, margin in zip(pair, (7.0, 400.0), strict=True)]
    assert [d.code for d in nest(far)] == ["TW105", "TW308"], "beyond doubt are both"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("TW106", 0.3), ("TW205", MODEST)),
        (("TW501", 0.6), ("TW206", MODEST)),
        (("TW201", 0.1), ("TW207", 0.5)),
        (("TW203", 0.1), ("TW207", 5.0)),
        (("TW207", 2.4), ("TW202", 8.0)),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_some_come_after_others_that_are_less_sure(first, second, turned):
    pair = [Diagnosis(code, "a", Severity.WARNING, "fault", margin=margin) for code, margin in (first, second)]
    assert [d.code for d in nest(pair[::-1] if turned else pair)] == [first[0], second[0]]


def test_each_comes_behind_those_it_is_to_follow_and_no_further():
    chain = [("TW202", 8.0), ("TW207", 5.0), ("TW205", MODEST), ("TW203", 0.1), ("TW501", 0.05)]
    found = [Diagnosis(code, "a", Severity.WARNING, "fault", margin=margin) for code, margin in chain]
    assert [d.code for d in nest([d for d in found if d.code != "TW202"])] == ["TW203", "TW207", "TW501", "TW205"]
    assert [d.code for d in nest([d for d in found if d.code != "TW203"])] == ["TW207", "TW202", "TW501", "TW205"]


def test_a_measured_margin_of_one_is_no_modest_one():
    pair = [Diagnosis(code, "a", Severity.WARNING, "fault", margin=m) for code, m in (("TW604", 1.0), ("TW106", 0.5))]
    assert [d.code for d in nest(pair)] == ["TW604", "TW106"]


def test_a_remark_makes_no_finding_come_later():
    spent = Diagnosis("TW203", "a", Severity.INFO, "fault", margin=9.0)  # stands beside each TW202
    found = [Diagnosis(code, "b", Severity.WARNING, "fault", margin=m) for code, m in (("TW207", 0.5), ("TW205", 0.7))]
    assert [d.code for d in nest([spent, *found])] == ["TW205", "TW207", "TW203"]
    surer = [found[0].with_(margin=0.9), found[1]]
    assert [d.code for d in nest([spent, *surer])] == ["TW207", "TW205", "TW203"], "by their margins"


def test_a_remark_that_leads_to_a_finding_is_as_sure_as_a_finding():
    cause = Diagnosis("TW301", "a", Severity.INFO, "fault", margin=2.0, confidence=confidence_of(2.0, "TW301", "info"))
    effect = Diagnosis("TW208", "b", Severity.WARNING, "fault", margin=2.0)
    (root,) = nest([cause, effect])
    assert (root.severity, [d.code for d in root.consequences]) == (Severity.WARNING, ["TW208"])
    assert root.confidence == confidence_of(2.0, "TW301") != cause.confidence
