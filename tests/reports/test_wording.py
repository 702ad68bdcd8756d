import math

import pytest

from trainwatch.diagnosis import Diagnosis, Remedy, Severity
from trainwatch.report import Report
from trainwatch.reports import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (math.nan, ""),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (0, "0"),
        (0.1, "0.1"),
        (-3.14159, "-3.142"),
        (12, "12"),
        (12345.678, "12,346"),
        (1234567, "1,234,567"),
        (1.5e12, "1.5e+12"),
        (2e-7, "2e-07"),
    ],
)
def test_number(value, text):
    assert wording.number(value) == text


def test_line_is_one_line_without_control_characters():
    assert wording.line("a\nb\t c\x1b[31m \u202ed\ud800") == "a b c?[31m ?d?"


def test_block_keeps_lines_and_indentation():
    assert wording.block("\nif x:\n\ty = 1  \r\n\x07\n") == "if x:\n    y = 1\n?"


def test_short_keeps_both_ends():
    assert wording.short("a" * 80) == "a" * 80
    shortened = wording.short("left" + "x" * 200 + "right")
    assert len(shortened) <= 80
    assert (shortened[:4], shortened[-5:]) == ("left", "right")


def test_remedies_in_use_come_last_and_weak_ones_before_them():
    used = Remedy("a", "A", "", "", already_in_use=True)
    weak, strong = Remedy("b", "B", "", "", strength="weak"), Remedy("c", "C", "", "", strength="strong")
    d = Diagnosis("TW201", "overfitting", Severity.ERROR, "s", remedies=(used, weak, strong))
    assert [wording.remedy_title(r) for r in wording.remedies(d)] == ["C", "B (weakly supported)", "A (already in use)"]


def test_places_beyond_six_are_counted():
    d = Diagnosis("TW304", "dead-units", Severity.WARNING, "s", where=tuple("abcdefgh"))
    assert wording.places(d) == "a, b, c, d, e, f and 2 more"


def test_headline_names_four_problems_and_counts_notes():
    found = tuple(Diagnosis(f"TW30{i}", "x", Severity.WARNING, "s") for i in range(6))
    note = Diagnosis("TW502", "y", Severity.INFO, "s")
    text = wording.headline(Report("findings", (*found, note)))
    assert text.startswith("6 problems found in this run: TW300 x (warning), ")
    assert text.endswith("TW303 x (warning) and 2 more. Also 1 note.")


def test_parameters_are_counted_from_a_list_too():
    facts = {"run": {"steps": 1, "epochs": None, "finished": False}, "parameters": [{"numel": 3}, {"numel": 4}]}
    tuned = {"parameters": 8, "tuning": {"trained": 2}, "run": {"steps": 9}}
    assert "(8 parameters, 25.0 % of them trained)" in wording.headline(Report("healthy", facts=tuned))
    whole = {**tuned, "tuning": {"trained": 8}}
    assert "(8 parameters)" in wording.headline(Report("healthy", facts=whole))
    assert "in 1 step of an unfinished run (7 parameters)" in wording.headline(Report("healthy", facts=facts))


@pytest.mark.parametrize(
    ("overhead", "lines"),
    [
        ({}, []),
        ({"share": None, "per_step_us": None, "seconds": {}}, []),
        ({"share": 0.0}, ["under 0.1 % of training."]),
        ({"seconds": {"a": 2.0, "b": 300.0}}, ["b 300 s, a 2.0 s."]),
        ({"skipped": ["x", "y"]}, ["Skipped: x, y."]),
    ],
)
def test_overhead_says_what_is_known(overhead, lines):
    assert wording.overhead(Report("healthy", overhead=overhead)) == lines


@pytest.mark.parametrize(
    ("code", "python"), [("x = 1", True), ("lower it, then wait", False), ("pip install x", False), ("\0", False)]
)
def test_is_python(code, python):
    assert wording.is_python(code) is python


@pytest.mark.parametrize(
    ("severity", "told"), [("info", ""), ("warning", "confidence 0.93"), ("error", "confidence 0.93")]
)
def test_a_remark_is_not_put_in_doubt(severity, told):
    assert wording.when(Diagnosis("TW502", "a", Severity(severity), "so it is", confidence=0.93)) == told
