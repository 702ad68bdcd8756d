"""Gradient of the layers below the last over that of the last, and what any step could change."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "rules"))
from synthetic_gradients import make_record, parameter

from trainwatch.record import RunRecord
from trainwatch.symptoms.starved import FEWEST, below_the_last, change_within_reach


def recorded(norms, orders=(0, 2)):
    layers = [parameter(f"{i}.weight", order=o, shape=(1, 1)) for i, o in enumerate(orders)]
    return make_record(np.ones(len(norms)), norms, parameters=layers)


def test_it_is_a_ratio_of_squares_at_the_end_of_the_run():
    norms = np.tile([3.0, 1.0], (100, 1))
    norms[60:] = [0.1, 1.0]
    assert below_the_last(recorded(norms)) == pytest.approx(0.01)
    assert below_the_last(recorded(1e3 * norms)) == pytest.approx(0.01)
    three = np.tile([0.3, 0.4, 5.0], (100, 1))
    assert below_the_last(recorded(three, (0, 1, 2))) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("norms", "orders"),
    [
        (np.ones((100, 1)), (0,)),
        (np.tile([np.nan, 1.0], (100, 1)), (0, 2)),
        (np.tile([1.0, 0.0], (100, 1)), (0, 2)),
        (np.ones((FEWEST, 2)), (0, 2)),
    ],
    ids=["one layer", "not trained", "nothing anywhere", "too few"],
)
def test_what_cannot_be_told_is_not(norms, orders):
    assert below_the_last(recorded(norms, orders)) is None
    assert below_the_last(RunRecord()) is None


def test_a_layer_that_gets_exactly_nothing_gets_nothing():
    assert below_the_last(recorded(np.tile([0.0, 1.0], (100, 1)))) == 0.0


def bent(norms, largest=0.0, smallest=0.0, weights=4.0):
    made = recorded(norms)
    made.append("hessian", "held", 100, [largest, 0, smallest, 0, 5, 0, 0, 0, 0, 8, weights])
    return made


def test_a_step_as_long_as_the_weights_changes_the_loss_by_slope_and_curvature():
    norms = np.tile([3.0, 4.0], (100, 1))
    norms[75:] = [0.03, 0.04]
    assert change_within_reach(bent(norms)) == pytest.approx(0.05 * 4)
    assert change_within_reach(bent(norms, 0.5, -0.1)) == pytest.approx(0.05 * 4 + 0.5 * 16 / 2)
    assert change_within_reach(bent(norms, 0.1, -0.5)) == pytest.approx(0.05 * 4 + 0.5 * 16 / 2)
    assert change_within_reach(bent(np.zeros((100, 2)))) == 0.0


def test_without_curvature_or_steps_enough_it_is_not_known():
    assert change_within_reach(recorded(np.ones((100, 2)))) is None
    assert change_within_reach(bent(np.ones((FEWEST, 2)))) is None
    assert change_within_reach(RunRecord()) is None
