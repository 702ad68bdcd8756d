"""What is read from the rows of the saddle probe."""

import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.curvature import curvature, decay_of, shares_of

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


def test_a_line_that_is_of_an_earlier_look_at_the_same_step_is_not_read():
    """The weights were moved between the two: now nothing curves downwards."""
    assert recorded([*HESSIAN[:5], 0.2, *HESSIAN[6:]]).escape is None


def test_the_gradient_is_shortened_by_its_noise_where_that_is_asked():
    assert recorded().gradient_gain_above(2.0) == pytest.approx((0.5 - 2 * 0.05) / (2 * 4.0))
    assert recorded().gradient_gain_above(20.0) == 0.0


def test_parameters_are_named_by_their_share_in_the_direction():
    record = RunRecord()
    assert shares_of(record) == []
    record.set_fact("parameters", [{"name": name} for name in ("a", "b", "c", "d")])
    record.append("saddle_direction", "held", 30, [0.2, 0.795, 0.005, np.nan])
    assert shares_of(record) == [("b", pytest.approx(0.795)), ("a", pytest.approx(0.2))]


def test_decay_that_is_part_of_the_gradient_curves_the_loss():
    record = RunRecord()
    assert decay_of(record) == 0.0
    groups = [{"weight_decay": 0.1}, {"weight_decay": 0.3}, {"weight_decay": 0.5, "decoupled_weight_decay": True}]
    record.set_fact("optimizers", {"default": {"type": "SGD", "groups": groups}})
    assert decay_of(record) == 0.3
