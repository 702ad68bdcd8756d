import math
from dataclasses import dataclass

import pytest

from trainwatch.probes.governor import Governor


@dataclass(frozen=True)
class Wish:
    kind: str
    priority: float = 0.0


def chosen(governor, requests, step, left, last=False):
    """Kinds that a round runs, in which each takes what it took before."""
    ran = []
    while (kind := governor.next(requests, step, left, last=last)) is not None:
        ran.append(kind)
        left -= (took := governor.accounts[kind].seconds)
        governor.ran(kind, step, took)
    return ran


ALL = [Wish("cheap", 1.0), Wish("dear", 2.0)]
KINDS = ("cheap", "dear")


def test_the_most_urgent_comes_first_and_unknown_kinds_are_passed_over():
    assert chosen(Governor("auto", KINDS), [*ALL, Wish("none of ours", 9.0)], 50, 1.0) == ["dear", "cheap"]


def test_what_the_rules_do_not_ask_for_is_not_run():
    assert chosen(Governor("auto", KINDS), [Wish("cheap")], 50, 1.0) == ["cheap"]


def test_several_wishes_for_a_probe_count_by_the_most_urgent():
    assert chosen(Governor("auto", KINDS), [Wish("cheap", 3.0), Wish("cheap", 0.5), *ALL], 50, 1.0) == [
        "cheap",
        "dear",
    ]


def test_a_probe_waits_until_the_budget_allows_what_it_took_last():
    governor = Governor("auto", KINDS)
    governor.ran("dear", 20, 0.5)
    governor.ran("cheap", 20, 0.1)
    assert chosen(governor, ALL, 100, 0.4) == ["cheap"]
    assert chosen(governor, ALL, 200, 0.55) == ["dear"], "what is left after the first does not do for the second"
    assert chosen(governor, ALL, 400, 0.7) == ["dear", "cheap"]
    assert chosen(governor, ALL[:1], 800, 0.0) == []
    assert governor.put_off == ["probe cheap: put off 2 times to keep the budget",
                                "probe dear: put off once to keep the budget"]  # fmt: skip


def test_it_tells_cheaply_whether_anything_waits():
    governor = Governor("auto", ("cheap",))
    assert [governor.waiting(step) for step in (0, 19, 20)] == [False, False, True]
    governor.ran("cheap", 20, 0.0)
    assert [governor.waiting(step) for step in (20, 39, 40)] == [False, False, True]


def test_nothing_is_run_on_credit():
    assert chosen(Governor("auto", KINDS), ALL, 50, 0.0) == []


def test_a_probe_is_repeated_when_the_run_is_twice_as_long():
    governor = Governor("auto", KINDS)
    ran = []
    for step in range(0, 1000, 10):
        if chosen(governor, [Wish("cheap")], step, 1.0):
            ran.append(step)
    assert ran == [20, 40, 80, 160, 320, 640]


def test_off_runs_none_and_all_runs_every_time_whatever_it_costs():
    off, everything = Governor("off", KINDS), Governor("all", KINDS)
    everything.ran("dear", 50, 100.0)
    assert chosen(off, ALL, 50, 1e9) == chosen(off, ALL, 50, 1e9, last=True) == []
    assert chosen(everything, ALL, 51, 0.0) == ["dear", "cheap"]
    assert chosen(everything, [], 52, 0.0) == ["cheap", "dear"]


def test_a_mapping_says_how_often():
    governor = Governor({"cheap": 30}, KINDS)
    ran = []
    for step in range(0, 100, 10):
        if chosen(governor, ALL, step, 0.0):
            ran.append(step)
    assert ran == [30, 60, 90]
    assert chosen(governor, ALL, 100, 0.0, last=True) == ["cheap"]  # and at the end no others


@pytest.mark.parametrize(("left", "run"), [(5.0, ["dear", "cheap"]), (0.2, ["cheap"])])
def test_the_round_at_the_end_runs_what_did_not_run_at_the_last_step(left, run):
    governor = Governor("auto", KINDS)
    governor.ran("dear", 90, 0.5)
    governor.ran("cheap", 90, 0.1)
    assert chosen(governor, ALL, 100, left, last=True) == run
    assert "cheap" not in chosen(governor, ALL, 100, left, last=True)


def test_what_runs_at_the_end_alone_is_due_at_no_other_time():
    governor = Governor("auto", KINDS, at_end=("dear",))
    assert chosen(governor, ALL, 50, 1.0) == ["cheap"]
    assert chosen(governor, ALL, 51, 1.0, last=True) == ["dear", "cheap"]
    assert not Governor("auto", ("dear",), at_end=("dear",)).waiting(50)
    assert chosen(Governor("all", KINDS, at_end=("dear",)), ALL, 50, 0.0) == ["dear", "cheap"]
    assert chosen(Governor({"dear": 10}, KINDS, at_end=("dear",)), ALL, 50, 0.0) == ["dear"]


@pytest.mark.parametrize(("step_seconds", "run"), [(0.01, ["dear", "cheap"]), (0.03, ["cheap"])])
def test_before_its_first_time_a_probe_costs_the_steps_that_it_is_worth(step_seconds, run):
    governor = Governor("auto", KINDS, steps={"dear": 50})
    governor.step_seconds = step_seconds
    assert chosen(governor, ALL, 100, 1.0, last=True) == run
    governor.ran("dear", 100, 0.1)
    assert chosen(governor, ALL, 200, 1.0, last=True) == ["dear", "cheap"]


def test_what_others_took_tells_better_what_a_step_costs():
    governor = Governor("auto", KINDS, steps={"dear": 50, "cheap": 10})
    governor.step_seconds = 0.1
    governor.ran("cheap", 20, 0.05)
    assert governor.next([Wish("dear")], 100, 0.2, last=True) is None
    assert governor.next([Wish("dear")], 100, 1.0, last=True) == "dear"


def test_what_one_took_is_gone_for_the_next():
    governor = Governor("auto", KINDS)
    governor.ran("dear", 20, 1.0)
    assert chosen(governor, ALL, 50, 1.0) == ["dear"]
    assert governor.put_off == ["probe cheap: put off once to keep the budget"]


def test_it_tells_what_the_budget_never_allowed():
    governor = Governor("auto", KINDS)
    assert governor.never == []
    governor.ran("dear", 20, 1.0)
    assert chosen(governor, [Wish("dear"), Wish("cheap")], 50, 0.0) == []
    assert governor.never == ["cheap"], "what ran before was measured"
    governor.ran("cheap", 60, 1.0)
    assert governor.never == []


def test_what_time_affords_is_counted_in_steps_at_the_pace_of_most_with_a_reserve():
    governor = Governor("auto", KINDS, steps={"dear": 50})
    assert governor.affords(5.0) == math.inf
    governor.step_seconds = 0.1
    assert governor.affords(5.0) == pytest.approx(45)
    governor.ran("dear", 100, 1.0)
    assert governor.affords(5.0) == pytest.approx(225)


def test_what_was_too_dear_is_weighed_again_by_what_others_took():
    governor = Governor("auto", KINDS, steps={"dear": 50, "cheap": 20})
    governor.step_seconds = 0.1
    assert governor.next(ALL, 100, 4.0, last=True) == "cheap", "at the run's own pace the dear one would take five"
    governor.ran("cheap", 100, 0.1)
    assert governor.next(ALL, 100, 3.9, last=True) == "dear"
    governor.ran("dear", 100, 0.5)
    assert governor.next(ALL, 100, 3.4, last=True) is None
    assert governor.put_off == []


def test_what_is_asked_for_may_change_with_what_was_found():
    governor = Governor("auto", KINDS)
    assert governor.next([Wish("cheap")], 50, 1.0) == "cheap"
    governor.ran("cheap", 50, 0.1)
    assert governor.next([Wish("dear")], 50, 0.9) == "dear"
    governor.ran("dear", 50, 0.1)
    assert governor.next(ALL, 50, 0.8) is None, "each once at a step"


def test_a_probe_that_gave_up_at_once_tells_nothing_of_what_a_step_costs():
    governor = Governor("auto", KINDS, steps={"cheap": 10})
    governor.step_seconds = 0.1
    governor.ran("cheap", 20, 0.001, whole=False)
    assert governor.affords(5.0) == pytest.approx(45)
    governor.ran("cheap", 40, 0.5)
    assert governor.affords(5.0) == pytest.approx(90)


def test_what_costs_next_to_nothing_comes_before_what_is_more_urgent():
    governor = Governor("auto", KINDS, steps={"dear": 200, "cheap": 16})
    assert chosen(governor, ALL, 50, 1.0) == ["cheap", "dear"]
    assert chosen(Governor("auto", KINDS, steps={"dear": 200, "cheap": 17}), ALL, 50, 1.0) == ["dear", "cheap"]
