"""Confidence fitted to diagnoses whose truth is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from outcomes import outcome

from benchmarks.zoo.calibration import Case, cases, fit, fitted, unseen, version, write
from benchmarks.zoo.reliability import reliability
from benchmarks.zoo.score import Said, Told
from trainwatch.rules.confidence import Curve


def case(right=True, code="TW101", family="f", margin=2.0, weight=1.0):
    return Case(family, code, False, margin, 0.9, right, weight)


def said(o, *told):
    return replace(o, said=Said((), told=told))


MIXED = [
    case(right=i % 10 < limit, code=code, family=f"{code}{i}", margin=float(i % 5))
    for code, limit, n in (("TW101", 9, 30), ("TW102", 3, 30), ("TW103", 0, 1))
    for i in range(n)
]


def test_rules_are_pulled_towards_what_all_have_in_common_the_rarer_the_more():
    free, held = fit(MIXED, 4.0), fit(MIXED, 0.25)
    assert free.codes["TW101"] > 0.5 > -0.5 > free.codes["TW102"]
    assert all(abs(held.codes[code]) < abs(free.codes[code]) for code in free.codes)
    alone = [case(right=False, code="TW102", family=f"w{i}") for i in range(20)]
    once = fit([*MIXED[:30], *alone, MIXED[-1]], 1.0).codes
    assert -0.75 * once["TW102"] > -once["TW103"] > 0, "one wrong of one says less than twenty of twenty"


def test_more_margin_is_never_held_against_a_diagnosis():
    falling = [case(right=i < 10, family=str(i), margin=float(i)) for i in range(20)]
    rising = [case(right=i >= 10, family=str(i), margin=float(i)) for i in range(20)]
    assert fit(falling, 1.0).slope == 0
    assert fit(rising, 1.0).slope > 0.5


def test_facts_get_their_own_rate():
    facts = [case(right=i % 2 == 0, family=str(i), margin=math.inf) for i in range(40)]
    others = [case(right=i >= 10, family=f"o{i}", margin=float(i)) for i in range(20)]
    curve = fit(facts + others, 0.25)
    assert curve.slope > 0.5
    assert curve(math.inf, "TW101") == pytest.approx(0.5, abs=0.1)


def test_a_case_of_twice_the_weight_is_two_cases():
    once, twice = fit([*MIXED, MIXED[5]], 1.0), fit([*MIXED[:5], replace(MIXED[5], weight=2.0), *MIXED[6:]], 1.0)
    assert once.codes == pytest.approx(twice.codes, abs=2e-3)
    assert once.intercept == pytest.approx(twice.intercept, abs=2e-3)
    assert fit(MIXED, 1.0).intercept != pytest.approx(once.intercept, abs=2e-3)


def test_no_curve_reaches_one_and_its_lapse_is_the_rule_of_three_over_families():
    some = [case(family=str(i % 30)) for i in range(300)]
    curve = fit(some, 1.0)
    assert curve.lapse == 0.1
    assert curve(1e9, "TW101") < 0.9
    assert fit([], 1.0) == Curve(0.0, 0.0, 0.0, 0.5, {})


def test_a_case_is_right_where_its_code_or_one_above_it_is_true_and_families_count_once():
    told = Told("B", False, 2.0, 0.9, above=("A",)), Told("C", True, 1.0, 0.5)
    runs = [
        said(outcome(truth=("A",), family="f", seed=0), Told("A", False, 3.0, 0.9), *told),
        said(outcome(truth=("A",), family="f", seed=1), Told("A", False, 3.0, 0.9)),
        said(outcome(truth=("C",), also=("D",), family="g"), Told("A", False, 1.0, 0.9), Told("D", False, 1.0, 0.9)),
        said(outcome(family="h"), Told("A", False, 1.0, 0.9)),
    ]
    found = cases(runs)
    assert [c.right for c in found] == [True, True, False, True, False, True, False]
    assert [c.remark for c in found] == [False, False, True, False, False, False, False]
    faulty, sound = 4 * 0.5 / 3, 4 * 0.5 / 1  # half of all runs are sound, before anything is said
    assert [c.weight for c in found] == pytest.approx([faulty / 2, faulty, faulty, faulty / 2, faulty, faulty, sound])


def test_families_left_out_have_no_part_in_what_is_said_of_them():
    turned = [replace(c, right=not c.right) if c.family == "TW1013" else c for c in MIXED]
    place = [c.family for c in MIXED].index("TW1013")
    before, after = unseen(MIXED, 1.0), unseen(turned, 1.0)
    assert before[place] == after[place]
    assert np.any(before != after)


def test_the_spread_is_the_one_that_predicts_best():
    told = fitted(MIXED)
    assert told.losses[told.spread] == min(told.losses.values()) < next(iter(told.losses.values())) - 0.05
    assert told.curve == fit(MIXED, told.spread)
    assert (told.cases, told.families, told.right) == (61, 61, pytest.approx(36 / 61))


def test_what_is_written_is_what_the_package_reads(tmp_path):
    finding, remark = fit(MIXED, 1.0), fit([], 1.0)
    told = write(tmp_path / "calibrated.py", finding, remark)
    read = {}
    exec((tmp_path / "calibrated.py").read_text(), read)
    assert (Curve(**read["CURVES"]["finding"]), Curve(**read["CURVES"]["remark"])) == (finding, remark)
    assert read["VERSION"] == told == version(read["CURVES"])
    assert write(tmp_path / "calibrated.py", remark, remark) != told


def test_reliability_in_numbers():
    some = [case(right=i < 8, family=str(i)) for i in range(10)] + [case(right=i < 5, family=str(i)) for i in range(10)]
    told = reliability([0.9] * 10 + [0.3] * 10, some)
    assert [(b.said, b.right, b.cases) for b in told.bins] == [
        (pytest.approx(0.3), 0.5, 10),
        (pytest.approx(0.9), 0.8, 10),
    ]
    assert told.error == pytest.approx((0.2 + 0.1) / 2)
    assert told.debiased == pytest.approx(np.sqrt((0.2**2 - 0.25 / 9 + 0.1**2 - 0.16 / 9) / 2))
    assert told.brier == pytest.approx((8 * 0.01 + 2 * 0.81 + 5 * 0.49 + 5 * 0.09) / 20)
    assert told.low <= told.error <= told.high
    assert reliability([], []) is None


def test_chance_alone_is_hardly_a_calibration_error_once_debiased():
    rng = np.random.default_rng(0)
    told = []
    for _ in range(10):
        chances = rng.uniform(0.5, 1.0, 200)
        came = rng.random(200) < chances
        told.append(reliability(chances, [case(right=bool(y), family=str(i % 20)) for i, y in enumerate(came)]))
    assert np.mean([r.debiased for r in told]) < 0.04 < 0.05 < np.mean([r.error for r in told])
