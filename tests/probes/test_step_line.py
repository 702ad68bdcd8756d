"""The loss along the coming step, where calculus tells how long the step should be."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch
from trainwatch.config import Settings
from trainwatch.probes.bench import Bench
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.step_line import LENGTHS, measure
from trainwatch.record import RunRecord

ROOMY = 1 << 20
ONE = LENGTHS.index(1.0)
START, TARGET = 0.0, 3.0


class Square(nn.Module):
    """One weight w whose loss is (w - TARGET)^2: its slope is 2 (w - TARGET), its curvature 2."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([START]))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.dropout(x) * self.w


class Given:
    """A batch of ones, whose target is the same for all."""

    def __init__(self, target=TARGET, samples=4):
        self.x, self.target, self.samples = torch.ones(samples), target, samples

    def predict(self, model):
        return model(self.x)

    def loss(self, model):
        return (self.predict(model) - self.target).square().mean()


def line(optimizer, batches=None, model=None, record=None, **more):
    """The row that the probe records for a weight and an optimiser of it."""
    model = Square() if model is None else model
    made = optimizer(model.parameters())
    record = RunRecord() if record is None else record
    batches = [Given() for _ in range(4)] if batches is None else batches
    measure(Bench(model, lambda kind: batches, "none is held", record, 7, ROOMY, (made,), **more))
    steps, rows = record.series("step_line", "train").history()
    assert steps.tolist() == [7]
    return rows[0].T


def sgd(lr, **more):
    return lambda parameters: torch.optim.SGD(parameters, lr, **more)


@pytest.mark.parametrize("best", [1 / 16, 0.25, 0.5, 1.0, 2.0, 4.0, 64.0, 4096.0])
def test_the_loss_is_lowest_where_newtons_step_ends(best):
    lengths, losses, errors = line(sgd(0.5 / best))
    assert lengths.tolist() == list(LENGTHS)
    assert lengths[np.nanargmin(losses)] == best
    assert losses[0] == pytest.approx(TARGET**2)
    assert np.nanmin(losses) == pytest.approx(0.0, abs=1e-5)
    tried = np.isfinite(losses)
    np.testing.assert_allclose(losses[tried], (TARGET * (1 - lengths[tried] / best)) ** 2, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(errors[tried], 0.0, atol=1e-6)


def test_beyond_four_steps_it_goes_on_only_while_the_loss_falls():
    _, losses, _ = line(sgd(0.5))
    assert np.isfinite(losses).sum() == 9  # 0 to 4, and 8 to see that it rises
    _, losses, _ = line(sgd(0.5 / 16))
    assert np.isfinite(losses).sum() == 11  # and 16, and 32


def test_a_batch_judges_the_steps_of_the_others():
    """Three batches pull to 1 and one to 5: its own step would go to it, theirs do not."""
    lengths, losses, errors = line(sgd(0.5), [Given(1.0), Given(1.0), Given(1.0), Given(5.0)])
    at = dict(zip(lengths, losses, strict=True))
    # Each of the three is judged after a step to the mean of 1, 1 and 5, the fourth after a step to 1.
    assert at[1.0] == pytest.approx((3 * (7 / 3 - 1) ** 2 + (5 - 1) ** 2) / 4)
    changes = [(7 / 3 - 1) ** 2 - 1] * 3 + [16 - 25]
    assert errors[list(lengths).index(1.0)] == pytest.approx(np.std(changes, ddof=1) / 2)


def test_the_state_of_the_optimiser_is_part_of_the_step():
    model = Square()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    Given().loss(model).backward()
    optimizer.step()
    record, start = RunRecord(), model.w.item()
    measure(Bench(model, lambda kind: [Given(), Given()], "", record, 7, ROOMY, (optimizer,)))
    _, losses, _ = record.series("step_line", "train").values[-1].T
    velocity = 0.9 * 2 * TARGET + 2 * (TARGET - start)
    np.testing.assert_allclose(losses[ONE], (TARGET - start - 0.01 * velocity) ** 2, rtol=1e-5)
    assert model.w.item() == start
    assert float(optimizer.state[model.w]["momentum_buffer"]) == pytest.approx(-2 * TARGET)


@pytest.mark.parametrize("kind", ["max_norm", "max_value"])
def test_what_the_run_clips_is_clipped(kind):
    record = RunRecord()
    record.set_fact("regularisation", {"clipping": {kind: 0.6}})
    _, losses, _ = line(sgd(0.5), record=record)
    assert losses[ONE] == pytest.approx((TARGET - 0.5 * 0.6) ** 2, rel=1e-4)


def test_the_factor_of_the_loss_counts_as_often_as_batches_make_up_a_step():
    record = RunRecord()
    record.append("loss_factor", "mse_loss", 0, 0.25)
    lengths, losses, _ = line(sgd(0.5), record=record)
    assert lengths[np.nanargmin(losses)] == 4.0
    record = RunRecord()
    record.append("loss_factor", "mse_loss", 0, 0.25)
    lengths, losses, _ = line(sgd(0.5), record=record, samples_per_step=16.0)  # four batches of four
    assert lengths[np.nanargmin(losses)] == 1.0


def test_every_length_meets_the_same_dropout():
    """Otherwise the losses would differ by their masks, and not by their lengths: at lr 0 they must not at all."""
    torch.manual_seed(0)
    _, losses, _ = line(sgd(0.0), model=Square(0.5))
    assert np.ptp(losses[np.isfinite(losses)]) == 0.0


def several_losses():
    record = RunRecord()
    record.append("loss_factor", "mse_loss", 0, 1.0)
    record.append("loss_factor", "l1_loss", 0, 0.1)
    return record


REFUSED = {
    "a single batch": ({"batches": [Given()]}, "fewer than two batches"),
    "no batch": ({"batches": []}, "none is held"),
    "a sum of losses": ({"record": several_losses()}, "a sum of several losses"),
    "an optimiser that wants a closure": ({"optimizer": torch.optim.LBFGS}, "cannot take a step: "),
    "no memory": ({"model": nn.Linear(1 << 10, 1 << 9)}, "model with its optimiser takes 8 MiB"),
}


@pytest.mark.parametrize(("case", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_tried_is_refused_with_the_reason(case, reason):
    with pytest.raises(CannotIsolate, match=reason):
        line(**({"optimizer": sgd(0.1)} | case))


def test_two_optimisers_are_refused():
    model = Square()
    two = (torch.optim.SGD(model.parameters(), 0.1), torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(CannotIsolate, match="several optimisers"):
        measure(Bench(model, lambda kind: [Given(), Given()], "", RunRecord(), 7, ROOMY, two))


def test_it_runs_under_a_watch_and_finds_the_rate_of_a_linear_model():
    torch.manual_seed(0)
    x = torch.randn(256, 4)
    y = x @ torch.ones(4, 1)
    model = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    settings = Settings(quiet=True, strict=True, probes={"step_line": 10})
    with trainwatch.watch(model, optimizer, settings=settings) as watch:
        for i in range(20):
            batch = slice(32 * (i % 8), 32 * (i % 8) + 32)
            optimizer.zero_grad()
            F.mse_loss(model(x[batch]), y[batch]).backward()
            optimizer.step()
    lengths, losses, _ = watch.record.series("step_line", "train").values[-1].T
    best = lengths[np.nanargmin(losses)]
    assert 256 <= best <= 1024  # inputs of unit variance: the curvature is 2, so a rate of 0.5 would do
