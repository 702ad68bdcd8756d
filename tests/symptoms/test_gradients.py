import numpy as np
import pytest

from trainwatch.record import RunRecord
from trainwatch.symptoms.gradients import (
    FIRST,
    LAYERS,
    ROWS,
    backward_signal,
    before_normalisation,
    gradients_of,
    growth_of,
    largest_update,
    learning_rate,
    long_steps,
    weight_gain,
    weight_layers,
)

RNG = np.random.default_rng(0)


def parameter(name, kind, order, numel=100):
    module = name.rpartition(".")[0]
    return {
        "name": name,
        "kind": kind,
        "order": order,
        "numel": numel,
        "shape": [10, numel // 10],
        "norm": 5.0,
        "module": module,
    }


def record(norms, parameters, *, optimizer="SGD", steps=None, modules=(), lr=0.1, **group):
    made, columns = RunRecord(), list(range(len(parameters)))
    made.set_fact("parameters", parameters)
    made.set_fact("modules", list(modules))
    groups = [{"lr": lr, "parameters": columns, **group}]
    made.set_fact("optimizers", {"default": {"type": optimizer, "parameters": columns, "groups": groups}})
    made.append("grad_norm", "default", np.arange(len(norms)) if steps is None else steps, norms)
    return made


def chain(depth, kinds=("weight", "bias")):
    return [parameter(f"l{i}.{kind}", kind, i) for i in range(depth) for kind in kinds]


def falling(depth, per_layer, noise=0.0, steps=50, kinds=2):
    profile = np.repeat(10 ** (per_layer * np.arange(depth)[::-1]), kinds)
    return profile * np.exp(noise * RNG.normal(size=(steps, depth * kinds)))


@pytest.mark.parametrize("per_layer", [-1.0, -0.2, 0.0, 0.5])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_decades_are_those_of_the_chain(per_layer, noise):
    signal = backward_signal(record(falling(9, per_layer, noise), chain(9)))
    assert signal.kind == "bias"
    assert signal.layers == 9
    np.testing.assert_allclose(signal.decades, 8 * per_layer, atol=0.05 + 2 * noise)
    assert signal.factor == pytest.approx(10**per_layer, rel=0.02 + noise)
    if per_layer and not noise:
        np.testing.assert_allclose(signal.steady, 1)


def test_the_error_is_that_of_repeated_measurement():
    found = [backward_signal(record(falling(12, -0.5, 1.0, steps=1), chain(12))) for _ in range(300)]
    spread = np.std([s.decades[0] for s in found])
    assert np.median([s.error for s in found]) == pytest.approx(spread, rel=0.35)


def test_rms_is_free_of_size():
    parameters = chain(5, ("bias",))
    for i, p in enumerate(parameters):
        p["numel"] = 10 ** (i + 1)
    norms = np.sqrt([[p["numel"] for p in parameters]])
    assert backward_signal(record(norms, parameters)).decades[0] == pytest.approx(0, abs=1e-6)


def test_order_is_that_of_execution():
    parameters = chain(5, ("bias",))
    for i, p in enumerate(parameters):
        p["order"] = 4 - i
    assert backward_signal(record(falling(5, -1.0, kinds=1), parameters)).decades[0] == pytest.approx(4)


def test_one_outlying_layer_does_not_turn_the_line():
    norms = falling(9, -0.5)
    norms[:, 0:2] *= 1e6
    assert backward_signal(record(norms, chain(9))).decades[0] == pytest.approx(-4, abs=0.5)


def test_other_kinds_do_not_count():
    kinds = ("norm", "embedding", "other", "bias")
    norms = np.tile([[1e-9, 1e9, 1e-9, 1.0] * 4], (5, 1))
    np.testing.assert_allclose(backward_signal(record(norms, chain(4, kinds))).decades, 0, atol=1e-6)


def test_absent_zero_and_infinite_gradients_do_not_count():
    norms = falling(6, -1.0)
    norms[:, 5] = np.nan
    norms[:, 7] = 0.0
    norms[::2, 3] = np.inf
    signal = backward_signal(record(norms, chain(6)))
    np.testing.assert_allclose(signal.decades[1:], signal.decades[1], atol=0.3)
    assert signal.decades[1] < -3


def test_a_block_whose_layers_are_cut_off_says_nothing():
    norms = falling(6, -1.0)
    norms[30:, :8] = 0.0
    signal = backward_signal(record(norms, chain(6)))
    assert np.isfinite(signal.decades[0])
    assert np.isnan(signal.decades[-1])


def test_fewer_than_three_layers_have_no_depth():
    assert backward_signal(record(falling(2, -1.0), chain(2))) is None
    assert backward_signal(record(falling(3, -1.0), chain(3))) is not None
    assert backward_signal(RunRecord()) is None


def test_few_biases_do_not_speak_for_many_weights():
    parameters = [*chain(9, ("weight",)), *chain(3, ("bias",))]
    assert backward_signal(record(np.ones((5, 12)), parameters)).kind == "weight"


def test_a_recurrent_matrix_is_a_weight():
    parameters = [
        parameter("rnn.ih", "weight", 0),
        parameter("rnn.hh", "recurrent", 0),
        parameter("out.w", "weight", 1),
    ]
    signal = backward_signal(record(np.tile([[1e3, 1e3, 1.0]], (5, 1)), parameters))
    assert (signal.layers, signal.kind) == (3, "weight")
    assert signal.decades[0] > 2


def test_blocks_cover_the_run_and_the_first_is_the_first_row():
    norms = falling(5, -1.0, steps=81)
    norms[0] = 1.0
    signal = backward_signal(record(norms, chain(5)))
    assert signal.steps[:2].tolist() == [0, 1]
    assert len(signal.steps) == 9
    assert signal.decades[0] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(signal.decades[1:], -4, atol=1e-3)


def test_a_deep_net_is_thinned():
    assert backward_signal(record(falling(99, -0.1), chain(99))).layers == LAYERS


def test_rows_are_thinned_and_the_first_ones_kept():
    found = gradients_of(record(np.ones((3000, 4)), chain(2)))
    assert found.steps[:FIRST].tolist() == list(range(FIRST))
    assert found.steps[-1] == 2999
    assert len(found.steps) <= ROWS + FIRST
    np.testing.assert_allclose(found.total, 2)


def test_the_folded_past_is_part_of_the_history():
    norms = np.ones((40_000, 40))
    norms[:20_000] = 3.0
    found = gradients_of(record(norms, chain(20)))
    assert found.steps[0] == 0
    assert np.all(np.diff(found.steps) > 0)
    assert (found.norms[:, 0] == 3).mean() == pytest.approx(0.5, abs=0.1)
    assert not found.untouched


@pytest.mark.parametrize(("first", "untouched"), [(0, True), (1000, False)])
def test_the_first_row_of_a_resumed_run_is_not_before_any_update(first, untouched):
    made = record(np.ones((5, 4)), chain(2), steps=np.arange(first, first + 5))
    assert gradients_of(made).untouched is untouched


def test_several_optimisers_have_no_common_history():
    made = record(np.ones((5, 4)), chain(2))
    made.append("grad_norm", "other", [0], [[1.0]])
    assert gradients_of(made) is None
    assert largest_update(made, 0, 3) is None


@pytest.mark.parametrize(("burst", "step"), [(99, None), (101, 60)])
def test_growth_is_against_the_median_of_the_past(burst, step):
    norms = np.ones((100, 4))
    norms[60] = burst
    found = growth_of(gradients_of(record(norms, chain(2))), 100.0)
    assert (found and found.step) == step


def test_growth_ignores_what_is_not_finite_and_the_wake_of_a_small_value():
    norms = np.ones((100, 4))
    norms[50:] = np.inf
    norms[10] = 1e-6
    assert growth_of(gradients_of(record(norms, chain(2))), 100.0) is None


def test_typical_norms_are_those_before_a_step():
    norms = np.ones((100, 4))
    norms[50:] = 1e6
    found = gradients_of(record(norms, chain(2)))
    assert found.typical_before(50) == pytest.approx(2)
    assert found.typical_before(0) is None


def test_the_update_of_sgd_is_the_rate_times_the_gradient():
    """Two weights of norm 5; biases do not count."""
    norms = np.tile([[3.0, 100.0, 4.0, 100.0]], (10, 1))
    norms[7] *= 2
    made = record(norms, chain(2), lr=0.5)
    length = 5 * 2**0.5
    assert largest_update(made, 0, 3) == (0, pytest.approx(0.5 * 5 / length))
    assert largest_update(made, 0, 9) == (7, pytest.approx(0.5 * 10 / length))
    assert largest_update(record(norms, chain(2), lr=0.5, momentum=0.9), 0, 3)[1] == pytest.approx(5 * 5 / length)


def test_the_update_of_adam_is_the_rate_a_weight():
    made = record(np.full((10, 4), 1e-9), chain(2), optimizer="Adam", lr=0.1)
    assert largest_update(made, 0, 3)[1] == pytest.approx(0.1 * 200**0.5 / (5 * 2**0.5))
    assert largest_update(record(np.ones((9, 4)), chain(2), optimizer="Lamb"), 0, 3) is None


def test_the_learning_rate_is_the_last_one_set():
    made = record(np.ones((50, 4)), chain(2))
    assert learning_rate(made, 10) == 0.1
    made.append("lr", "default/0", [0, 20], [0.5, 0.25])
    assert [learning_rate(made, step) for step in (0, 19, 20, 99)] == [0.5, 0.5, 0.25, 0.25]


def test_the_gain_of_the_weights():
    parameters = chain(3)
    for p in parameters:
        p["norm"] = 10.0 if p["kind"] == "weight" else 0.0
    assert weight_gain(record(np.ones((3, 6)), parameters)) == pytest.approx(10 / 10**0.5)  # std 1 by fan-in 10


def test_the_update_of_adagrad_shrinks_with_the_root_of_the_steps():
    made = record(np.ones((100, 4)), chain(2), optimizer="Adagrad", lr=0.1)
    first = 0.1 * 200**0.5 / (5 * 2**0.5)
    assert largest_update(made, 0, 99) == (0, pytest.approx(first))
    assert largest_update(made, 24, 99) == (24, pytest.approx(first / 5))


def test_weights_of_layers_are_counted():
    kinds = ("weight", "bias", "recurrent", "norm", "embedding")
    assert weight_layers(record(np.ones((3, 10)), chain(2, kinds))) == 4
    assert weight_layers(RunRecord()) == 0


def test_modules_before_a_normalisation_are_known_by_order_of_execution():
    types = ["BatchNorm1d", "Linear", "ReLU", "Conv2d", "GroupNorm", "Linear"]
    modules = [
        {"name": f"{i}", "type": t, "order": o} for i, (t, o) in enumerate(zip(types, (1, 0, 2, 3, 4, 5), strict=True))
    ]
    assert before_normalisation(modules) == {"1", "3"}
    assert before_normalisation([]) == set()


def test_growth_counts_only_where_it_may():
    norms = np.ones((100, 4))
    norms[60], norms[80] = 200.0, 300.0
    counts = np.arange(100) > 70
    assert growth_of(gradients_of(record(norms, chain(2))), 100.0, counts).step == 80


def test_steps_are_long_before_clipping_and_not_told_of_adaptive_optimisers():
    norms = np.ones((50, 4))
    norms[20] = 100.0  # two weights of norm 5: an update of 0.1 * 100 over 5
    made = record(norms, chain(2))
    made.set_fact("regularisation", {"clipping": {"max_norm": 1e-3}})
    assert np.flatnonzero(long_steps(made, 1.9)).tolist() == [20]
    assert not long_steps(made, 2.1).any()
    assert long_steps(record(norms, chain(2), optimizer="Adam"), 1.9) is None
