import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.record.series import Series
from trainwatch.symptoms.activity import activities


def record(**sites):
    """Sites by name: (order, function, probes), each probe a step and a row."""
    made, known = RunRecord(), {}
    for name, (order, function, probes) in sites.items():
        known[name] = {"module": f"the.{name}", "function": function, "order": order}
        for step, row in probes:
            made.append("activity", name, step, np.array(row))
    made.set_fact("activations", known)
    return made


ROW = (0.25, 0.5, 0.125, 2.0, 300.0, 64.0)


def test_nothing_seen():
    assert activities(RunRecord()) == []


def test_all_columns_are_read():
    (found,) = activities(record(a=(0, "relu", [(7, ROW)])))
    assert (found.site, found.module, found.function, found.step) == ("a", "the.a", "relu", 7)
    assert (found.dead, found.rare, found.flat, found.rms, found.entries, found.units) == ROW
    assert isinstance(found.entries, int)
    assert isinstance(found.units, int)


def test_the_latest_probe_counts_and_the_first_is_kept():
    probes = [(20, (0.75, 0.75, 0.0625, 1.0, 100, 8)), (40, (0.5, 0.5, 0.5, 1.0, 100, 8)), (80, ROW)]
    (relu,) = activities(record(a=(0, "relu", probes)))
    assert (relu.dead, relu.step, relu.first, relu.first_step) == (0.25, 80, 0.75, 20)
    for function in ("tanh", "sigmoid"):
        (found,) = activities(record(a=(0, function, probes)))
        assert (found.flat, found.first) == (0.125, 0.0625)


def test_they_come_in_order_of_execution():
    some = [(1, ROW)]
    found = activities(record(c=(10, "relu", some), a=(9, "tanh", some), b=(2, "relu", some)))
    assert [a.site for a in found] == ["b", "a", "c"]


def test_a_site_that_has_no_row_yet_is_left_out():
    made = record(a=(0, "relu", [(1, ROW)]))
    more = {name: {"module": name, "function": "relu", "order": 1} for name in "bc"}
    made.set_fact("activations", made.facts["activations"] | more)
    made.put_series("activity", "c", Series((6,)))
    assert [a.site for a in activities(made)] == ["a"]


@pytest.mark.parametrize(
    ("function", "rectifies", "squashes"),
    [
        ("relu", True, False),
        ("threshold", True, False),
        ("hardtanh", True, False),
        ("sigmoid", False, True),
        ("tanh", False, True),
        ("gelu", False, False),
    ],
)
def test_functions_rectify_or_squash(function, rectifies, squashes):
    (found,) = activities(record(a=(0, function, [(1, ROW)])))
    assert (found.rectifies, found.squashes) == (rectifies, squashes)
