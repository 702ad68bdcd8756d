import numpy as np
import pytest
import torch
from torch import nn

import trainwatch
from trainwatch.capture.passes import _error
from trainwatch.record import RunRecord
from trainwatch.rules.robust_loss import far_targets, heavy_tails, robust_loss
from trainwatch.symptoms.residuals import residuals


def watched(errors, criterion=None, batch=16):
    """A validation pass in which outputs miss their targets by these errors, shape (n, k)."""
    model = nn.Linear(errors.shape[1], errors.shape[1], bias=False)
    nn.init.eye_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    criterion = criterion or nn.MSELoss()
    x, other = torch.randn(errors.shape), torch.randn(8, errors.shape[1])
    with trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "probes": "off"}) as watch:
        criterion(model(other), other + 1).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            for rows in torch.arange(len(x)).split(batch):
                criterion(model(x[rows]), x[rows] - errors[rows])
    return watch.record


def normal(n=400, k=2, seed=0):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_three_norms_of_what_validation_is_off_by(scale):
    errors = scale * normal()
    errors[7, 1] = 40 * scale
    found = residuals(watched(errors))
    assert found.mean == pytest.approx(float(errors.abs().mean()), rel=1e-3)
    assert found.rms == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-3)
    assert found.largest == pytest.approx(40 * scale, rel=1e-3)
    assert found.median == pytest.approx(float(errors.abs().median()), rel=1e-2)


def test_heavy_tails_want_a_robust_loss_with_a_bound_of_twice_the_median():
    errors = normal()
    errors[::40] *= 30
    (shown,), (cure,) = heavy_tails(made := watched(errors))
    assert shown.value > shown.threshold == 1.6
    assert cure.id == "robust-loss"
    delta = float(cure.how.split("delta=")[1].split(")")[0])
    assert delta == pytest.approx(2 * residuals(made).median, rel=0.01)
    assert "|r|inf = " in cure.why


def test_silent_on_normal_errors_those_of_laplace_and_other_losses():
    laplace = normal().sign() * -torch.rand(400, 2, generator=torch.Generator().manual_seed(1)).log()
    assert heavy_tails(watched(normal())) == heavy_tails(watched(laplace)) == ([], [])
    errors = normal()
    errors[::40] *= 30
    assert heavy_tails(watched(errors, nn.L1Loss())) == ([], [])
    assert heavy_tails(RunRecord()) == ([], [])


def test_without_validation_the_norms_are_not_measured():
    cure = robust_loss(RunRecord())
    assert "HuberLoss(delta=1)" in cure.how
    assert "not measured" in cure.why
    assert residuals(watched(torch.zeros(32, 1))) is None


def test_parts_of_a_pass_count_by_their_samples_and_the_largest_error_is_that_of_any():
    parts = np.array([[1.0, 4.0, 9.0, 0.5], [2.0, 10.0, 3.0, 1.5]])
    assert _error(parts, [300, 100]).tolist() == [1.25, 5.5**0.5, 9.0, 0.75]
    assert np.isposinf(_error(np.array([[1.0, np.inf, np.inf, 0.5]]), [10])[1:3]).all()


def of_targets(draw, far=None, function="mse_loss"):
    y = np.sort(draw)
    least, most = (y[0], y[-1]) if far is None else (min(far, y[0]), max(far, y[-1]))
    made = RunRecord()
    low, high = np.quantile(y, [0.05, 0.95])
    made.append("target_stats", function, 7, [least, most, y.mean(), y.std(), low, high, 0.0, 0.5, 0.3])
    return made


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("far", [60.0, -60.0])
def test_training_targets_far_beyond_all_others_are_named(scale, far):
    draw = np.random.default_rng(0).normal(size=4096)
    (shown,) = far_targets(of_targets(scale * draw, scale * far))
    assert shown.value == pytest.approx((60 - 1.645) / 3.29, rel=0.1)
    assert (shown.threshold, shown.step) == (10.0, 7)
    assert heavy_tails(of_targets(scale * draw, scale * far))[1][0].id == "robust-loss"
    assert not far_targets(of_targets(scale * draw, scale * far, "huber_loss"))


@pytest.mark.parametrize("name", ["normal", "exponential", "lognormal", "laplace"])
def test_tails_as_they_are_met_with_are_not_far(name):
    draw = getattr(np.random.default_rng(0), name)(size=4096)
    assert not far_targets(of_targets(draw))
    assert not far_targets(of_targets(np.zeros(9)))
    assert not far_targets(RunRecord())
