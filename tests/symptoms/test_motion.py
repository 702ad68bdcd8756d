import numpy as np
import pytest
import torch
from synthetic_gradients import digits, mlp, train
from torch import nn

from trainwatch.record import RunRecord
from trainwatch.symptoms.gradients import ADAPTIVE, EPSILON, update_lengths
from trainwatch.symptoms.motion import LEAST_GAIN, WILD, flow_time, reach_of

STEPS = 10
GRADIENTS = np.tile([[3.0, 100.0, 4.0, 100.0]], (STEPS, 1))  # of length 5 without those of the biases
LENGTH = 5 * 2**0.5  # of two weights


def parameter(name, kind="weight", norm=5.0, shape=(4, 25), trainable=True):
    shape = (4,) if kind == "bias" else shape
    facts = {"name": name, "kind": kind, "trainable": trainable, "norm": norm}
    return facts | {"shape": list(shape), "numel": int(np.prod(shape))}


TWO = [parameter(f"l{i}.{kind}", kind) for i in range(2) for kind in ("weight", "bias")]


def record(norms=GRADIENTS, parameters=TWO, *, optimizer="SGD", steps=None, groups=None, lr=0.5, columns=None, **group):
    """A run; `groups` are (rate, parameters, momentum), else all parameters share `lr`."""
    made = RunRecord()
    columns = list(range(len(parameters))) if columns is None else columns
    made.set_fact("parameters", parameters)
    described = [{"lr": lr, "parameters": columns, **group}]
    if groups is not None:
        described = [{"lr": rate, "parameters": list(own), "momentum": momentum} for rate, own, momentum in groups]
    made.set_fact("optimizers", {"default": {"type": optimizer, "parameters": columns, "groups": described}})
    made.append("grad_norm", "default", np.arange(len(norms)) if steps is None else steps, norms)
    return made


def test_sgd_goes_the_rate_times_the_gradient_at_each_step():
    found = reach_of(record())
    assert found.total == pytest.approx(STEPS * 0.5 * 5 / LENGTH)
    assert (found.steps, found.rate, found.optimizer) == (STEPS, 0.5, "SGD")


def test_the_steps_are_summed_each_with_its_own_gradient():
    norms = GRADIENTS.copy()
    norms[7] *= 4
    assert reach_of(record(norms)).total == pytest.approx((STEPS + 3) * 0.5 * 5 / LENGTH)


@pytest.mark.parametrize(("limit", "step"), [(1.0, 5 / np.hypot(5, 2**0.5 * 100)), (1e3, 5.0), (0.0, 5.0)])
def test_a_clipped_gradient_moves_weights_by_what_clipping_leaves(limit, step):
    made = record()
    made.set_fact("regularisation", {"clipping": {"max_norm": limit}})
    assert reach_of(made).total == pytest.approx(STEPS * 0.5 * step / LENGTH)


@pytest.mark.parametrize(("optimizer", "step"), [("SGD", 5.0), ("RMSprop", 200**0.5)])
@pytest.mark.parametrize(("momentum", "factor"), [(None, 1), (0.0, 1), (0.5, 2), (0.9, 10), (0.999, 100)])
def test_momentum_lengthens_the_steps_up_to_a_hundred_times(optimizer, step, momentum, factor):
    found = reach_of(record(optimizer=optimizer, momentum=momentum))
    assert found.total == pytest.approx(factor * STEPS * 0.5 * step / LENGTH)


@pytest.mark.parametrize("optimizer", [name for name in ADAPTIVE if name != "Adagrad"])
@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_adaptive_optimisers_go_the_rate_a_weight_whatever_the_gradient(optimizer, size):
    found = reach_of(record(size * GRADIENTS, optimizer=optimizer, lr=1e-3))
    assert found.total == pytest.approx(STEPS * 1e-3 * 200**0.5 / LENGTH)
    assert found.optimizer == optimizer


@pytest.mark.parametrize("epsilon", [1e-3, 1.0])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_a_large_epsilon_shortens_adaptive_steps_by_what_it_adds_to_the_gradient(epsilon, momentum):
    """Gradients of 0.3 and 0.4 a weight, in weights of 100 entries."""
    made = record(optimizer="RMSprop", eps=epsilon, lr=1e-3, momentum=momentum)
    each = np.array([0.3 / (0.3 + epsilon), 0.4 / (0.4 + epsilon)]) * 1e-3 * 10 * (10 if momentum else 1)
    assert reach_of(made).total == pytest.approx(STEPS * np.hypot(*each) / LENGTH)
    assert update_lengths(made)[0] == pytest.approx(np.hypot(*each) / LENGTH)


def test_epsilon_is_nothing_to_plain_steps_and_a_small_one_to_none():
    assert reach_of(record(eps=1.0)).total == reach_of(record()).total
    small = 1e-9 * GRADIENTS
    assert reach_of(record(small, optimizer="Adam", eps=EPSILON)) == reach_of(record(small, optimizer="Adam"))


def test_adagrad_goes_the_rate_over_the_root_of_the_step():
    late = record(optimizer="Adagrad", lr=1e-3, steps=np.arange(100, 100 + STEPS))
    for made, steps in ((record(optimizer="Adagrad", lr=1e-3), np.arange(1, 11)), (late, np.arange(101, 111))):
        assert reach_of(made).total == pytest.approx(1e-3 * (200 / steps) ** 0.5 @ np.ones(STEPS) / LENGTH)
        assert reach_of(made).rate == 1e-3


@pytest.mark.parametrize(
    ("factor", "counts"), [(0.9 * WILD, 0.9 * WILD), (1.1 * WILD, WILD), (1e9, WILD), (40.0, WILD)]
)
def test_a_wild_update_counts_as_a_few(factor, counts):
    norms = GRADIENTS.copy()
    norms[7] *= factor
    assert reach_of(record(norms)).total == pytest.approx((STEPS - 1 + counts) * 0.5 * 5 / LENGTH)


@pytest.mark.parametrize(("optimizer", "step"), [("SGD", 5.0), ("Adam", 200**0.5)])
def test_each_step_has_the_rate_of_its_time_and_the_highest_is_named(optimizer, step):
    made = record(optimizer=optimizer)
    made.append("lr", "default/0", [0, 2, 5], [0.1, 0.5, 0.01])
    found = reach_of(made)
    assert found.total == pytest.approx((2 * 0.1 + 3 * 0.5 + 5 * 0.01) * step / LENGTH)
    assert found.rate == pytest.approx(0.5)


def test_each_group_has_its_own_rate_and_momentum_and_the_length_is_that_of_all():
    made = record(groups=[(0.5, (0, 1), 0.0), (0.1, (2, 3), 0.9)])
    assert reach_of(made).total == pytest.approx(STEPS * np.hypot(0.5 * 3, 1.0 * 4) / LENGTH)
    made.append("lr", "default/1", 0, 2.0)
    assert reach_of(made).total == pytest.approx(STEPS * np.hypot(0.5 * 3, 20 * 4) / LENGTH)
    assert reach_of(made).rate == 2.0


def test_each_group_of_adam_counts_its_own_weights():
    sizes = [parameter("a"), parameter("b", shape=(9, 10, 10))]
    made = record(np.ones((STEPS, 2)), sizes, optimizer="Adam", groups=[(0.1, (0,), None), (0.01, (1,), None)])
    assert reach_of(made).total == pytest.approx(STEPS * np.hypot(0.1 * 10, 0.01 * 30) / LENGTH)
    assert reach_of(made).rate == pytest.approx(0.1)


def test_columns_are_those_of_the_optimisers_parameters_and_others_do_not_count():
    """The first weight is not trained: the norms begin with the second parameter's."""
    made = record(np.tile([[4.0, 100.0]], (STEPS, 1)), columns=[2, 3], groups=[(0.5, (0, 2, 3), 0.0)])
    assert reach_of(made).total == pytest.approx(STEPS * 0.5 * 4 / 5)


def test_a_recurrent_matrix_is_a_weight_and_no_other_kind_is():
    kinds = ("recurrent", "norm", "embedding", "bias", "other", "weight")
    made = record(np.tile([[3.0, 9.0, 9.0, 9.0, 9.0, 4.0]], (STEPS, 1)), [parameter(k, k) for k in kinds])
    assert reach_of(made).total == pytest.approx(STEPS * 0.5 * 5 / LENGTH)


@pytest.mark.parametrize("norm", [0.0, 0.2])
def test_weights_that_begin_near_zero_count_as_larger(norm):
    """They soon have a usual length, and their way there is no sign of long steps."""
    least = LEAST_GAIN * 4**0.5  # a deviation of LEAST_GAIN over the root of 25, times the root of 100 entries
    made = record(np.tile([[3.0, 4.0]], (STEPS, 1)), [parameter("a"), parameter("b", norm=norm)])
    assert reach_of(made).total == pytest.approx(STEPS * 0.5 * 5 / np.hypot(5, least))
    small = record(np.tile([[3.0]], (STEPS, 1)), [parameter("a", norm=norm)])
    assert reach_of(small).total == pytest.approx(STEPS * 0.5 * 3 / least)


def test_a_weight_without_a_fan_in_does_not_count():
    made = record(np.tile([[3.0, 4.0]], (STEPS, 1)), [parameter("a"), parameter("scale", shape=(100,))])
    assert reach_of(made).total == pytest.approx(STEPS * 0.5 * 3 / 5)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize(("gradient", "trainable"), [(4.0, False), (0.0, True), (np.nan, True)])
def test_a_weight_that_never_moves_does_not_count(optimizer, gradient, trainable):
    """Neither its length, which may be that of a whole pretrained body, nor its steps."""
    still = parameter("body", norm=1e3, trainable=trainable)
    made = record(np.tile([[gradient, 3.0]], (STEPS, 1)), [still, parameter("head")], optimizer=optimizer)
    step = {"SGD": 3.0, "Adam": 10.0}[optimizer]
    assert reach_of(made).total == pytest.approx(STEPS * 0.5 * step / 5)


@pytest.mark.parametrize("gradient", [1e-30, np.inf])
def test_a_weight_that_gets_one_gradient_counts(gradient):
    norms = np.tile([[0.0, 3.0]], (STEPS, 1))
    norms[7, 0] = gradient
    made = record(norms, [parameter("a", norm=12.0), parameter("b")])
    assert reach_of(made).total == pytest.approx(STEPS * 0.5 * 3 / 13)


@pytest.mark.parametrize("absent", [np.nan, np.inf])
def test_a_gradient_that_is_absent_or_not_finite_moves_nothing(absent):
    norms = GRADIENTS.copy()
    norms[:4, 2] = absent
    assert reach_of(record(norms)).total == pytest.approx((4 * 3 + 6 * 5) * 0.5 / LENGTH)


def test_a_row_stands_for_the_steps_up_to_the_next_one():
    norms = np.array([[1.0], [5.0], [2.0]])
    found = reach_of(record(norms, [parameter("a")], steps=[0, 10, 14]))
    assert found.total == pytest.approx((10 * 1 + 4 * 5 + 1 * 2) * 0.5 / 5)
    assert found.steps == 15


def test_a_run_that_was_resumed_counts_its_own_steps():
    assert reach_of(record(steps=np.arange(1000, 1000 + STEPS))).steps == STEPS


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_the_folded_past_counts_as_much_as_it_was_long(optimizer):
    """40 columns: most of 40 000 rows are folded into windows, and far fewer rows are looked at."""
    steps = 40_000
    norms = np.ones((steps, 40))
    norms[: steps // 4] = 9.0
    made = record(norms, [parameter(f"l{i}.weight") for i in range(40)], optimizer=optimizer)
    made.append("lr", "default/0", [0, steps // 2], [1e-3, 1e-4])
    assert len(made.series("grad_norm", "default").windows["first"]) > 0
    quarters = {"SGD": 9 * 1e-3 + 1e-3 + 2e-4, "Adam": (1e-3 + 1e-3 + 2e-4) * 10}[optimizer]
    found = reach_of(made)
    assert found.total == pytest.approx(steps / 4 * quarters / 5, rel=0.03)
    assert found.steps == steps


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter_where_the_step_is_as_long(scale):
    plain = reach_of(record()).total
    assert reach_of(record(scale * GRADIENTS, lr=0.5 / scale)).total == pytest.approx(plain)


def several():
    made = record()
    made.append("grad_norm", "other", [0], [[1.0]])
    return made


UNKNOWN = {
    "nothing was recorded": RunRecord(),
    "several optimisers": several(),
    "an optimiser of unknown steps": record(optimizer="Lamb"),
    "nothing but biases": record(np.ones((STEPS, 1)), [parameter("bias", "bias")]),
    "all is frozen": record(parameters=[p | {"trainable": False} for p in TWO]),
    "no gradient at all": record(0 * GRADIENTS),
}


@pytest.mark.parametrize("made", UNKNOWN.values(), ids=UNKNOWN)
def test_none_where_it_cannot_be_told(made):
    assert reach_of(made) is None


class Odometer:
    """Stands in for a scheduler: adds up how far the weights went, step by step."""

    def __init__(self, model):
        self.weights = [p for p in model.parameters() if p.ndim > 1]
        self.before = self.now()
        self.length, self.gone = float(self.before.norm()), 0.0

    def now(self):
        return torch.cat([p.detach().flatten() for p in self.weights])

    def step(self):
        now = self.now()
        self.gone += float((now - self.before).norm())
        self.before = now


OPTIMISERS = {
    "sgd": (lambda p: torch.optim.SGD(p, 0.1), 0.999, 1.001),
    "momentum": (lambda p: torch.optim.SGD(p, 0.02, momentum=0.9), 0.3, 1.001),
    "adam": (lambda p: torch.optim.Adam(p, 1e-3), 0.3, 1.001),
    "adamw": (lambda p: torch.optim.AdamW(p, 1e-2), 0.2, 1.001),
    "rmsprop": (lambda p: torch.optim.RMSprop(p, 1e-3), 0.3, 2.0),  # its first steps are ten times its rate
    "rmsprop with momentum": (lambda p: torch.optim.RMSprop(p, 2e-4, momentum=0.9), 0.2, 2.0),
}


@pytest.mark.parametrize(("make", "least", "most"), OPTIMISERS.values(), ids=OPTIMISERS)
def test_it_is_of_the_size_of_a_real_path(make, least, most):
    model = mlp(3, nn.ReLU)
    odometer = Odometer(model)
    found = reach_of(train(model, make(model.parameters()), *digits(), steps=150, scheduler=odometer))
    assert least < odometer.gone / odometer.length / found.total < most


@pytest.mark.parametrize(("momentum", "factor"), [(None, 1), (0.9, 10), (0.999, 100)])
def test_gradient_flow_takes_the_sum_of_the_rates(momentum, factor):
    assert flow_time(record(momentum=momentum)) == pytest.approx(STEPS * 0.5 * factor)
    spread = record(steps=np.arange(STEPS) * 3, momentum=momentum)
    assert flow_time(spread) == pytest.approx((3 * (STEPS - 1) + 1) * 0.5 * factor)


def test_gradient_flow_takes_that_of_the_fastest_group():
    assert flow_time(record(groups=[(0.1, (0, 1), 0.0), (0.02, (2, 3), 0.9)])) == pytest.approx(STEPS * 0.2)


def test_gradient_flow_is_none_of_adam():
    assert flow_time(record(optimizer="Adam")) is None
    assert flow_time(RunRecord()) is None


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_steps_before_a_rate_falls_to_nothing_count_in_full(optimizer):
    rates = np.r_[np.full(3, 0.5), np.full(7, 1e-9)]
    made = record(optimizer=optimizer)
    made.append("lr", "default/0", np.arange(STEPS), rates)
    whole = reach_of(record(optimizer=optimizer)).total
    assert reach_of(made).total == pytest.approx(0.3 * whole, rel=1e-6)
