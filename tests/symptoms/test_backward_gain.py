import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.backward_gain import backward_gain

NAN = np.nan


def record(*rows, names="abcdefgh", at=20):
    made = RunRecord()
    for name, row in zip(names, rows, strict=False):
        made.append("backward_gain", name, at, np.array(row, float))
    made.set_fact("backward_gain", {"modules": list(names)})
    return made


def test_typical_factors_are_geometric_means_of_what_is_known():
    found = backward_gain(record((NAN, 0.1), (2.0, 0.4), (8.0, NAN)))
    assert (found.weight, found.between) == pytest.approx((4.0, 0.2))
    assert (found.layers, found.step) == (2, 20)


def test_the_first_probe_counts():
    made = record((NAN, 0.1), (2.0, 0.1), (2.0, NAN))
    for name in "abc":
        made.append("backward_gain", name, 40, np.array([9.0, 9.0]))
    assert backward_gain(made).weight == pytest.approx(2.0)


@pytest.mark.parametrize(
    "made",
    [RunRecord(), record(), record((NAN, 0.1), (2.0, NAN)), record((NAN, NAN), (2.0, NAN), (1.0, NAN)),
     record((NAN, 1.0), (NAN, 1.0), (2.0, NAN))],
    ids=["nothing", "no row", "two layers", "nothing between", "one weight"],
)  # fmt: skip
def test_too_few_layers_tell_nothing(made):
    assert backward_gain(made) is None


def test_what_is_zero_or_not_finite_is_left_out():
    found = backward_gain(record((0.0, 0.5), (2.0, 0.5), (2.0, np.inf), (2.0, 0.0)))
    assert (found.weight, found.between, found.layers) == (2.0, 0.5, 2)
