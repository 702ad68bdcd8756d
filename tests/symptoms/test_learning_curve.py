import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.learning_curve import importances, learning_curve, worst_tenth


def curve_of(losses, error=0.01, samples=100):
    record = RunRecord()
    record.append("learning_curve", "forest", 9, [samples, *losses, error, 0.5, 1.0, 200])
    return learning_curve(record)


@pytest.mark.parametrize("exponent", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_a_power_law_goes_on(exponent, floor):
    loss = [floor + n**-exponent for n in (25, 50, 100, 200)]
    found = curve_of(loss[:3])
    assert found.gain == pytest.approx(loss[2] - loss[3], rel=1e-4)
    assert found.ratio == pytest.approx(2**-exponent, rel=1e-4)
    assert found.gain_error == pytest.approx(0.01 * found.ratio, rel=1e-4)


@pytest.mark.parametrize(
    ("losses", "gain"),
    [((1.0, 0.9, 0.6), 0.3 * 2**-0.15), ((2.0, 0.9, 0.8), 0.05), ((1.0, 1.1, 1.0), 0.05), ((0.8, 0.7, 0.75), -0.025)],
    ids=["ever faster", "suddenly slow", "first up", "then up"],
)
def test_exponents_stay_within_what_is_met_with(losses, gain):
    assert curve_of(losses).gain == pytest.approx(gain, rel=1e-4)


@pytest.mark.parametrize(("best", "share"), [(0.3, 0.5), (0.6, 1.0), (0.9, 1.0)])
def test_a_net_that_is_ahead_gains_as_much_less(best, share):
    assert curve_of((1.0, 0.8, 0.6)).share_left(best) == pytest.approx(share)


def test_of_a_loss_of_nothing_nothing_is_left_out():
    assert curve_of((0.2, 0.1, 0.0)).share_left(0.1) == 1.0


def test_what_is_not_finite_is_no_curve():
    assert curve_of((1.0, np.inf, 0.6)) is None


def losses(values):
    record = RunRecord()
    record.append("val_loss", "val", 5, np.mean(values))
    record.append("val_sample_loss", "val", 5, values)
    record.set_fact("validation", {"val": {"kind": "val", "primary": True}})
    return worst_tenth(record)


def test_the_worst_tenth():
    assert losses(np.r_[np.full(90, 0.1), np.full(10, 0.9)]) == pytest.approx(0.5)
    assert losses(np.ones(19)) is None
    assert losses(np.r_[np.ones(30), -1.0]) is None


def test_importances_are_of_the_features_that_there_are():
    record = RunRecord()
    assert importances(record) is None
    record.append("feature_importance", "val", 5, np.r_[0.3, 0.1, np.full(62, np.nan)])
    np.testing.assert_allclose(importances(record), [0.3, 0.1], rtol=1e-6)
