"""What going on at a lower learning rate was worth."""

import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.lower_rate import lower_rate


def recorded(*losses):
    record = RunRecord()
    record.append("lower_rate", "held", 70, [0.5, *losses])
    return record


def test_gains_are_those_of_the_lower_rate():
    found = lower_rate(recorded(2.0, 1.5, 0.1, 3.0, 3.25, 0.2))
    assert (found.step, found.share) == (70, 0.5)
    assert (found.training.value, found.training.error) == pytest.approx((0.5, 0.1))
    assert (found.validation.value, found.validation.error) == pytest.approx((-0.25, 0.2))


def test_without_validation_that_part_is_absent():
    found = lower_rate(recorded(2.0, 1.5, 0.1, np.nan, np.nan, np.nan))
    assert found.validation is None
    assert found.training.value == 0.5


@pytest.mark.parametrize("losses", [(np.inf, 1.5), (2.0, np.nan)])
def test_a_copy_that_was_lost_tells_nothing(losses):
    assert lower_rate(recorded(*losses, 0.1, 3.0, 2.0, 0.2)) is None


def test_nothing_was_tried():
    assert lower_rate(RunRecord()) is None
