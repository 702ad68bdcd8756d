import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benches import bench, blobs, in_batches, net, row
from trainwatch.probes import evaluated
from trainwatch.probes.isolation import CannotIsolate

X, Y, XV, YV = blobs()


def test_the_row_has_the_losses_of_both_modes_and_kinds_with_their_errors():
    model = net(6, 64, 3, dropout=0.9)
    given = bench(model, in_batches(X, Y), in_batches(XV, YV))
    evaluated.measure(given)
    training, error, noisy, validation, other = row(given, "evaluated_loss", "held")
    model.eval()
    with torch.no_grad():
        each, others = (F.cross_entropy(model(x), y, reduction="none") for x, y in ((X, Y), (XV, YV)))
    assert training == pytest.approx(float(each.mean()), rel=1e-5)
    assert error == pytest.approx(float(each.std() / len(each) ** 0.5), rel=1e-4)
    assert validation == pytest.approx(float(others.mean()), rel=1e-5)
    assert other == pytest.approx(float(others.std() / len(others) ** 0.5), rel=1e-4)
    assert noisy > training + 3 * error


def test_of_neither_validation_batches_nor_samples_is_known_what_was_not_seen():
    given = bench(net(6, 8, 3), in_batches(X[:32], Y[:32], size=32, reduction="sum"))
    evaluated.measure(given)
    training, error, _, validation, other = row(given, "evaluated_loss", "held")
    assert training > 20
    assert error > 0
    assert math.isnan(validation)
    assert math.isnan(other)


def test_at_most_sixteen_batches_are_looked_at():
    x = torch.cat([torch.zeros(16 * 4, 6), torch.full((4, 6), torch.nan)])
    given = bench(net(6, 8, 3), in_batches(x, torch.zeros(len(x), dtype=torch.long), size=4))
    evaluated.measure(given)
    assert np.isfinite(row(given, "evaluated_loss", "held")[0])


def test_the_model_is_left_alone():
    model = net(6, 8, 3, norm=True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    evaluated.measure(bench(model, in_batches(X, Y)))
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_without_training_batches_it_says_why():
    with pytest.raises(CannotIsolate, match="none was held"):
        evaluated.measure(bench(net(6, 8, 3), [], in_batches(XV, YV)))


@pytest.mark.parametrize(
    ("losses", "mean", "error"),
    [([], math.nan, math.nan), ([2.0], 2.0, math.nan), ([1.0, 3.0, math.nan], 2.0, 1.0)],
)
def test_mean_and_error(losses, mean, error):
    found = evaluated.mean_and_error(np.array(losses))
    assert found == pytest.approx((mean, error), nan_ok=True)


def test_what_a_run_keeps_in_evaluation_mode_is_so_in_copies_and_stays_so_between_looks():
    model = net(6, 32, 32, 3, norm=True, dropout=0.5)
    frozen = next(name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm1d))
    given = bench(model, in_batches(X, Y), optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
                  training_mode={"resting": [frozen, "gone"]})  # fmt: skip
    with given.learner() as (copied, optimizer):
        norm = copied.get_submodule(frozen)
        before = norm.running_mean.clone()
        for batch in given.batches("train"):
            given.train_step(batch, copied, optimizer)
            with evaluated.evaluating(copied):
                assert not any(module.training for module in copied.modules())
        assert {name for name, module in copied.named_modules() if not module.training} == {frozen}
        assert torch.equal(norm.running_mean, before)
    with given.model() as copied:
        assert not copied.training


def test_modes_come_back_after_a_look_that_fails():
    model = net(6, 8, 3, dropout=0.5)
    with pytest.raises(ZeroDivisionError), evaluated.evaluating(model):
        1 / 0  # noqa: B018
    assert model.training
