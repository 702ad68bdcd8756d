import numpy as np
import pytest
import torch
from torch import nn

import trainwatch
from benches import Given
from trainwatch.capture import wiring
from trainwatch.probes.bench import Bench
from trainwatch.probes.gradient_noise import measure
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.record import RunRecord
from trainwatch.symptoms.useful_motion import gradient_signal

ROOMY = 1 << 26


def bench(model, batches):
    record = RunRecord()
    record.set_fact("parameters", wiring.parameter_facts({"default": model}))
    return Bench(model, lambda kind: batches, "none was held", record, 7, ROOMY)


def measured(model, batches):
    b = bench(model, batches)
    measure(b)
    return b.record, b.record.series("gradient_signal", "train").values[0]


def linear(width=6):
    return nn.Linear(width, 1, bias=False)


def test_norm_of_the_mean_and_unbiased_spread():
    """The gradient of a mean of linear outputs is the mean of the inputs."""
    batches = torch.randn(4, 5, 6)
    record, ((mean, spread),) = measured(linear(), [Given(x) for x in batches])
    gradients = batches.mean(1).numpy()
    assert mean == pytest.approx(np.linalg.norm(gradients.mean(0)), rel=1e-5)
    assert spread == pytest.approx(np.sqrt(gradients.var(0, ddof=1).sum()), rel=1e-5)
    assert record.memo(gradient_signal).batches == 4
    assert record.series("gradient_signal", "train").steps.tolist() == [7]


def test_the_same_batch_again_has_no_noise():
    x = torch.randn(5, 6)
    record, ((mean, spread),) = measured(linear(), [Given(x)] * 3)
    assert spread < 1e-6 * mean
    assert record.memo(gradient_signal).ratio[0] > 1e5


def test_pure_noise_has_a_ratio_of_one():
    draw = torch.Generator().manual_seed(0)
    ratios = []
    for _ in range(20):
        batches = [Given(torch.randn(1, 300, generator=draw)) for _ in range(4)]
        record, _ = measured(linear(300), batches)
        ratios.append(record.memo(gradient_signal).ratio[0])
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.05)
    batches = [Given(torch.randn(1, 300, generator=draw) + 1.0) for _ in range(4)]
    assert measured(linear(300), batches)[0].memo(gradient_signal).ratio[0] == pytest.approx((1 + 4) ** 0.5, rel=0.1)


def test_dropout_is_on_and_differs_between_batches():
    x = torch.ones(2, 6)
    _, ((_, spread),) = measured(nn.Sequential(nn.Dropout(0.5), linear()).eval(), [Given(x)] * 4)
    assert spread > 0.1


def test_what_has_no_gradient_is_absent_and_what_is_not_finite_is_said():
    net = nn.ModuleDict({"used": linear(), "frozen": linear().requires_grad_(False), "spare": linear()})

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = net

        def forward(self, x):
            return self.parts["used"](x) + self.parts["frozen"](x)

    _, rows = measured(Net(), [Given(torch.randn(3, 6)) for _ in range(2)])
    assert np.isfinite(rows[0]).all()
    assert np.isnan(rows[1:]).all()
    _, rows = measured(linear(), [Given(torch.full((3, 6), np.inf)) for _ in range(2)])
    assert np.isinf(rows).all()


def test_the_model_is_left_alone():
    model = nn.Sequential(linear(), nn.BatchNorm1d(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [Given(torch.randn(5, 6)) for _ in range(3)]
    state = torch.get_rng_state()
    measured(model, batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_one_batch_is_not_enough():
    with pytest.raises(CannotIsolate, match="fewer than two batches"):
        measure(bench(linear(), [Given(torch.randn(5, 6))]))


def test_parameters_that_came_later_are_refused():
    b = bench(linear(), [Given(torch.randn(5, 6))] * 2)
    b._live.register_parameter("late", nn.Parameter(torch.ones(1)))
    with pytest.raises(CannotIsolate, match="not those that it began with"):
        measure(b)


def test_sparse_gradients_and_half_precision():
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Flatten(), nn.Linear(8, 1))
    _, rows = measured(model, [Given(torch.randint(10, (3, 2))) for _ in range(3)])
    assert (rows > 0).sum() >= 4
    half = linear().to(torch.bfloat16)
    _, rows = measured(half, [Given(torch.randn(3, 6).to(torch.bfloat16)) for _ in range(3)])
    assert (rows > 0).all()


def test_a_run_measures_it():
    torch.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(8, 8), nn.Tanh())], nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
    with trainwatch.watch(
        model, optimizer, settings={"quiet": True, "strict": True, "probes": {"gradient_noise": 10}}
    ) as watch:
        for _ in range(40):
            rows = torch.randint(64, (16,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    signal = watch.record.memo(gradient_signal)
    assert signal.batches == 4
    assert np.isfinite(signal.ratio).all()
