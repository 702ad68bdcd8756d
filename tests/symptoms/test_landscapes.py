"""The charts of curvature, from rows as the saddle probe writes them."""

import math

import numpy as np
import pytest

from trainwatch.diagnosis import to_plain
from trainwatch.figures import figure_from_plain
from trainwatch.record import RunRecord
from trainwatch.reports.drawing import svg
from trainwatch.symptoms.pictures import figures_of

#          largest, bound, least, bound, products, along, error, slope^2, error, batches, weights
HESSIAN = [4.0, 0.25, -2.0, 0.5, 7, -1.5, 0.125, 0.5, 0.25, 8, 3.0]
#        length, A, B, error, even, error
LINE = [
    [0.0, 1.0, 1.125, 0.0, 0.0, 0.0],
    [0.125, 0.9, 1.0, 0.0625, -0.0625, 0.03125],
    [0.25, 0.5, 0.75, 0.125, -0.25, 0.0625],
    [0.5, 0.75, 1.5, 0.25, 0.5, 0.125],
    [1.0, 9.0, 99.0, 7.0, 90.0, 7.0],
    [np.nan] * 6,
]


def table():
    found = np.full((10, 10), np.nan)
    found[0, 1:] = np.linspace(-4, 4, 9)
    found[1:, 0] = np.linspace(-1, 1, 9)
    found[1:, 1:] = np.arange(81).reshape(9, 9)
    return found


def record_of(hessian=HESSIAN, line=LINE, plane=None, step=30, plane_step=30):
    record = RunRecord()
    if hessian is not None:
        record.append("hessian", "held", step, hessian)
    if line is not None:
        record.append("saddle_line", "held", step, line)
    if plane is not None:
        record.append("loss_plane", "held", plane_step, plane)
    return record


def test_the_ends_of_the_spectrum_come_with_what_they_are_uncertain_by():
    figure = figures_of(record_of())["spectrum"]
    assert figure.values == (4.0, -2.0, -1.5)
    assert figure.errors == (0.25, 0.5, 0.125)
    assert figure.labels == (
        "largest eigenvalue (batches A): 4",
        "most negative curvature found (A): -2",
        "in that direction on others (B): -1.5",
    )
    assert "30" in figure.title
    assert len(max(figure.labels, key=len)) <= 48  # more is cut when it is drawn


def test_what_is_not_negative_is_not_called_so():
    figure = figures_of(record_of([*HESSIAN[:2], 0.0, *HESSIAN[3:]], line=None))["spectrum"]
    assert figure.labels[1] == "smallest curvature found (A): 0"


def test_the_line_shows_the_judges_and_ends_one_beyond_the_proposal():
    figure = figures_of(record_of())["saddle"]
    downhill, even = figure.lines.values()
    assert [x for x, _, _ in downhill] == [x for x, _, _ in even] == [0.0, 0.125, 0.25, 0.5]
    assert [value for _, value, _ in downhill] == [1.125, 1.0, 0.75, 1.5]
    assert [value for _, value, _ in even] == [1.125, 1.0625, 0.875, 1.625]
    assert [error for _, _, error in downhill] == [0.0, 0.0625, 0.125, 0.25]
    assert [error for _, _, error in even] == [0.0, 0.03125, 0.0625, 0.125]
    assert figure.marks == {0.0: "here", 0.25: "proposed: 0.25"}


def test_a_line_that_does_not_fall_proposes_nothing():
    rising = [[x, 1.0 + x, *row] for x, _, *row in LINE]
    figure = figures_of(record_of(line=rising))["saddle"]
    assert figure.marks == {0.0: "here"}
    assert len(figure.lines["downhill (B)"]) == 3


def test_the_plane_is_laid_out_with_the_direction_across():
    figure = figures_of(record_of(plane=table()))["loss_plane"]
    assert figure.x == tuple(range(-4, 5))
    assert figure.y == (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
    assert figure.values[2][5] == 2 * 9 + 5


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ({"hessian": None, "line": None}, []),
        ({"line": None}, ["spectrum"]),
        ({}, ["spectrum", "saddle"]),
        ({"plane": table()}, ["spectrum", "saddle", "loss_plane"]),
        ({"plane": table(), "plane_step": 10}, ["spectrum", "saddle"]),  # of an earlier place
    ],
)
def test_there_are_pictures_of_what_was_measured_last(rows, names):
    assert list(figures_of(record_of(**rows))) == names


def test_they_survive_json_and_are_drawn():
    holes = table()
    holes[3, 3] = math.inf
    for figure in figures_of(record_of(plane=holes)).values():
        again = figure_from_plain({"kind": figure.kind, **to_plain(figure)})
        assert again == figure
        assert svg(again, "salt").startswith("<svg")
