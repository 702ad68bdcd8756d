import numpy as np
import pytest
from synthetic_gradients import make_record

from trainwatch.symptoms.step_line import step_line

LENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def record(losses, errors=0.1, at=50, **more):
    made = make_record(np.full(50, 2.3), np.ones((50, 3)), **more)
    losses = [*losses, *[np.nan] * (len(LENGTHS) - len(losses))]
    made.append("step_line", "train", at, np.stack([LENGTHS, losses, np.full(len(LENGTHS), errors)], 1))
    return made


def test_the_best_length_is_that_of_the_lowest_loss():
    line = step_line(record([2.0, 1.9, 1.8, 1.6, 1.7, 2.4]))
    assert (line.best, line.step, line.rate) == (1.0, 50, pytest.approx(0.1))
    assert line.fall == pytest.approx(0.4, rel=1e-5)
    assert line.error == pytest.approx(0.1)
    assert line.lengths.tolist() == list(LENGTHS[:6])
    assert len(line.losses) == 6


def test_where_every_length_is_worse_none_is_best():
    line = step_line(record([2.0, 2.1, 2.2, 2.3]))
    assert (line.best, line.fall) == (0.0, 0.0)


def test_the_last_line_counts():
    made = record([2.0, 1.0, 3.0])
    made.append("step_line", "train", 60, np.stack([LENGTHS, np.linspace(2, 1, 7), np.zeros(7)], 1))
    assert step_line(made).best == 8.0
    assert step_line(made).step == 60


@pytest.mark.parametrize("losses", [[2.0] * 7, [2.0, 2.0 + 1e-7, 2.0], [np.nan] * 7, [np.inf] * 7])
def test_a_line_that_shows_no_change_is_none(losses):
    assert step_line(record(losses)) is None


def test_a_loss_that_overflows_on_the_way_is_no_obstacle():
    assert step_line(record([2.0, 1.9, 1.5, 1.8, np.inf])).best == 0.5


def test_without_a_measurement_there_is_no_line():
    assert step_line(make_record(np.full(50, 2.3), np.ones((50, 3)))) is None
