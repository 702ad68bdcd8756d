import numpy as np
import pytest
from synthetic_gradients import chain, make_record

from trainwatch.record import RunRecord
from trainwatch.symptoms.layer_pictures import LAYERS, layer_pictures_of


def with_motion(layers, signal=False):
    parameters, modules = chain(layers)
    count = 2 * layers
    made = make_record(np.ones(100), np.full((100, count), 1e-2), parameters=parameters, modules=modules, lr=0.1)
    rows = [[1e-3, 0.1 * (i + 1), 0.2 * (i + 1), 0.5] for i in range(count)]
    for step in (50, 100):
        made.append("motion", "default", step, rows, {"every": 10})
    if signal:
        made.append("gradient_signal", "train", 90, [[i + 1.0, 2.0] for i in range(count)], {"batches": 4})
    return made


def with_activity(**sites):
    made, known = RunRecord(), {}
    for order, (name, (function, row)) in enumerate(sites.items()):
        known[name] = {"module": name, "function": function, "order": order}
        made.append("activity", name, 7, np.array(row))
    made.set_fact("activations", known)
    return made


def test_nothing_measured_nothing_drawn():
    assert layer_pictures_of(RunRecord()) == {}


def test_motion_of_each_weight_in_order_of_execution():
    figure = layer_pictures_of(with_motion(2))["motion"]
    assert figure.labels == ("layers.0.weight", "layers.2.weight")
    assert figure.groups["distance from the start / weight"] == pytest.approx((0.1, 0.3))
    assert figure.groups["straightness (1: random walk)"] == pytest.approx((0.5 * 10**0.5,) * 2, rel=1e-6)
    assert len(figure.groups) == 2


def test_the_signal_is_that_of_the_same_weight():
    groups = layer_pictures_of(with_motion(2, signal=True))["motion"].groups
    assert groups["gradient, signal / noise"] == pytest.approx((1.0, 3.0))


def test_many_layers_are_thinned_with_first_and_last():
    figure = layer_pictures_of(with_motion(100))["motion"]
    assert len(figure.labels) == LAYERS == len(figure.groups["straightness (1: random walk)"])
    assert (figure.labels[0], figure.labels[-1]) == ("layers.0.weight", "layers.198.weight")


def test_health_of_activations_where_it_can_be_told():
    made = with_activity(
        a=("relu", (0.25, 0.5, 0.0, 2.0, 300.0, 64.0)), b=("tanh", (0.0, 0.0, 0.125, 0.9, 300.0, 64.0))
    )
    figure = layer_pictures_of(made)["activity"]
    assert figure.labels == ("a", "b")
    np.testing.assert_array_equal(figure.groups["dead units"], (0.25, np.nan))
    np.testing.assert_array_equal(figure.groups["saturated entries"], (np.nan, 0.125))
    assert figure.groups["root mean square"] == pytest.approx((2.0, 0.9))
    assert figure.title == "Health of each activation at step 7, first on top"


def test_a_share_that_no_activation_has_is_left_out():
    figure = layer_pictures_of(with_activity(a=("relu", (0.25, 0.5, 0.0, 2.0, 300.0, 64.0))))["activity"]
    assert list(figure.groups) == ["dead units", "root mean square"]
