"""What is read from the rows of the saddle probe."""

import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.curvature import curvature

HESSIAN = [4.0, 0.1, -2.0, 0.2, 7, -1.8, 0.1, 0.5, 0.05, 8, 3.0]
#        length, A, B, error, even, error
LINE = [
    [0.0, 1.0, 1.1, 0.0, 0.0, 0.0],
    [0.1, 0.9, 1.0, 0.01, -0.02, 0.005],
    [0.2, 0.7, 0.9, 0.02, -0.01, 0.02],
    [0.4, 0.5, 0.8, 0.03, -0.10, 0.01],
    [0.8, 0.6, 0.4, 0.05, 0.30, 0.01],
    [np.nan] * 6,
]


def recorded(hessian=HESSIAN, line=LINE):
    record = RunRecord()
    record.append("hessian", "held", 30, hessian)
    if line is not None:
        record.append("saddle_line", "held", 30, line)
    return curvature(record)


def test_the_step_is_chosen_by_the_batches_that_gave_the_direction_and_judged_by_the_others():
    escape = recorded().escape
    assert escape.length == pytest.approx(0.4)
    assert escape.drop == pytest.approx(1.1 - 0.8)
    assert escape.drop_error == pytest.approx(0.03)
    assert len(escape.lengths) == 5


@pytest.mark.parametrize(("errors", "sizes"), [(0.4, 3), (2.0, 2), (5.0, 1), (11.0, 0)])
def test_sizes_count_where_the_even_part_is_below_zero_beyond_its_error(errors, sizes):
    assert recorded().escape.sizes_below(errors) == sizes


def test_bounds_widen_with_confidence_and_with_fewer_batches():
    found = recorded()
    assert (found.step, found.batches, found.products, found.weights) == (30, 8, 7, 3.0)
    assert found.along_below(0.5) == pytest.approx(-1.8)
    assert found.along_below(0.99) == pytest.approx(-1.8 + 2.998 * 0.1, abs=1e-3)  # Student's t, 7 degrees
    few = recorded([*HESSIAN[:9], 2, 3.0])
    assert few.along_below(0.99) > 0


def test_the_gain_of_the_gradient_is_what_a_safe_step_brings():
    assert recorded().gradient_gain == pytest.approx(0.5 / (2 * 4.0))
    assert recorded([*HESSIAN[:7], -0.5, *HESSIAN[8:]]).gradient_gain == 0.0  # less than its noise
    assert recorded([-1.0, *HESSIAN[1:]]).gradient_gain == np.inf


def test_without_rows_nothing_is_known():
    assert curvature(RunRecord()) is None
    assert recorded(line=None).escape is None
