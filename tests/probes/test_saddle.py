"""The saddle test: by arithmetic, and on real trainings at saddles and everywhere else."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch
from benches import bench, held, in_batches
from trained import split
from trainwatch.config import Settings
from trainwatch.probes import saddle
from trainwatch.probes.curvature import Hessian
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.plane import STEPS as FOR_PLANE
from trainwatch.probes.saddle import FIRST, SIZES, answered, measure, saddle_test
from trainwatch.symptoms.curvature import curvature
from twice import Square, Squares, case

SURE, ERRORS, BEYOND = 0.99, 0.975, 20.0  # what a verdict would ask for; docs/benchmarks.md has the numbers


def is_saddle(found):
    """Negative on other batches, confirmed by stepping, and worth more than the gradient promises."""
    escape, errors = found.escape, found.quantile(ERRORS)
    return (
        escape is not None
        and found.along_below(SURE) < 0
        and escape.sizes_below(errors) >= 2
        and escape.drop > errors * escape.drop_error
        and escape.drop > BEYOND * found.gradient_gain
    )


# By arithmetic: two weights (x, y), and batches that shift the loss x^2 - y^2 + y^4 / 4, which is lowest at y^2 = 2.


class Weights(nn.Module):
    def __init__(self, x, y):
        super().__init__()
        self.both = nn.Parameter(torch.tensor([float(x), float(y)]))


class Hilly:
    """A batch whose curvature along y differs from the mean's by `more`, and its slope by `tilt`."""

    samples = 1

    def __init__(self, more=0.0, tilt=0.0, level=1.0):
        self.more, self.tilt, self.level = more, tilt, level

    def loss(self, model):
        x, y = model.both
        return self.level + x**2 + (self.more / 2 - 1) * y**2 + y**4 / 4 + self.tilt * y


def on_hills(x=0.0, y=0.0, batches=None, **more):
    batches = [Hilly(d) for d in (0.0, 0.0, 0.2, 0.0, -0.2, 0.0)] if batches is None else batches
    given = bench(Weights(x, y), batches, parameters=[{"name": "both"}], **more)
    measure(given)
    return given.record, curvature(given.record)


def test_at_the_ridge_all_is_as_calculus_says():
    record, found = on_hills()
    assert (found.step, found.batches, found.weights) == (100, 4, 0.0)
    assert (found.largest, found.smallest) == (2.0, -2.0)
    # Batches 1, 2, 4 and 5 judge: their curvatures are -2, -1.8, -2.2 and -2.
    assert found.along == pytest.approx(-2.0, abs=1e-6)
    assert found.along_error == pytest.approx(np.std([0, 0.2, -0.2, 0], ddof=1) / 2, rel=1e-5)
    assert found.along_below(0.99) == pytest.approx(-2.0 + 4.5407 * found.along_error, rel=1e-4)  # Student's t, 3
    assert found.slope_squared == found.gradient_gain == 0.0
    lengths = found.escape.lengths
    first = math.sqrt(2 * FIRST / 2)
    assert lengths[0] == 0.0
    np.testing.assert_allclose(lengths[1:], first * 2.0 ** np.arange(len(lengths) - 1), rtol=1e-5)
    np.testing.assert_allclose(found.escape.losses, 1 - lengths**2 + lengths**4 / 4, rtol=1e-4)
    np.testing.assert_allclose(found.escape.even, -(lengths**2) + lengths**4 / 4, rtol=1e-3, atol=1e-6)
    error = np.std([0, 0.1, -0.1, 0], ddof=1) / 2 * lengths**2
    np.testing.assert_allclose(found.escape.errors, error, rtol=1e-2, atol=1e-6)
    np.testing.assert_allclose(found.escape.even_errors, error, rtol=1e-2, atol=1e-6)
    nearest = lengths[np.argmin(-(lengths**2) + lengths**4 / 4)]
    assert found.escape.length == nearest
    assert found.escape.drop == pytest.approx(nearest**2 - nearest**4 / 4, rel=1e-4)
    assert is_saddle(found)
    assert record.series("saddle_direction", "held").values[-1].tolist() == [1.0]
    assert record.series("hessian", "held").provenance == {"method": "double backward"}


def test_lengths_end_two_beyond_the_lowest():
    record, found = on_hills()
    best = found.escape.best
    assert len(found.escape.lengths) == best + 3 <= SIZES
    assert np.isnan(record.series("saddle_line", "held").values[-1][best + 3 :]).all()


def test_a_direction_need_not_be_an_eigenvector(monkeypatch):
    """Any direction of negative curvature will do, though how negative the least is may not be known yet."""
    monkeypatch.setattr(saddle, "PRODUCTS", 3)
    curvatures = torch.linspace(-0.2, 1.0, 80)

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.x = nn.Parameter(torch.zeros(80))

    class Slow(Hilly):
        def loss(self, model):
            return 1 + (curvatures * model.x.square() / 2 + model.x**4).sum()

    given = bench(Wide(), [Slow() for _ in range(6)], parameters=[{"name": "x"}])
    measure(given)
    found = curvature(given.record)
    assert found.products == 3
    assert -0.2 < found.smallest < 0 < found.smallest + found.smallest_bound
    assert found.along == pytest.approx(found.smallest, rel=1e-3)
    assert found.escape.drop > 0


def test_where_differences_serve_they_serve_the_judges_too():
    model, loss, batches = case(Squares(Square.apply), "mse", batches=6)
    twin = Squares(torch.square)
    twin.load_state_dict(model.state_dict())
    losses, exact = ([partial(loss, net, b) for b in batches] for net in (model, twin))
    found = saddle_test(losses[:2], losses[2:], dict(model.named_parameters()), memory=1 << 24)
    assert found.method == "finite differences"
    vector = torch.cat([part.reshape(-1) for part in found.direction.values()])
    judge = Hessian(exact[2:], list(twin.parameters()), memory=0)
    true = [float(product @ vector) for _, product in judge.apart(vector)]
    np.testing.assert_allclose(found.curvatures, true, atol=1e-2)
    assert np.ptp(true) > 0.1


def test_one_rise_is_not_the_end_of_a_line():
    class Waves(Hilly):
        def loss(self, model):
            x, y = model.both
            return x**2 + (2**0.5 * y).cos()

    _, found = on_hills(batches=[Waves() for _ in range(6)])
    steps = np.diff(found.escape.losses)
    assert steps[6] < 0 < steps[7]  # at a length of 4, the next hill
    assert found.escape.lengths[-1] > 16


@pytest.mark.parametrize("y", [0.3, -0.3])
def test_the_direction_points_to_where_the_loss_is_lower(y):
    """The weights' own units are steps along it: from y = 0.3 the way down is up, from -0.3 it is down."""
    model = Weights(0.0, y)
    losses = [[lambda b=b: b.loss(model) for b in (Hilly(), Hilly(0.1))] for _ in range(2)]
    found = saddle_test(*losses, {"both": model.both}, memory=1 << 20)
    assert found.direction["both"][1].item() == pytest.approx(math.copysign(1.0, y))
    assert np.nanmin(found.line[:, 1]) < 0.1 < found.line[0, 1]
    assert model.both.tolist() == pytest.approx([0.0, y])


def test_a_slope_is_not_taken_for_curvature():
    """Where the loss falls to one side, the mean over both sides tells whether it bends."""
    _, found = on_hills(batches=[Hilly(2.4, tilt=0.5) for _ in range(6)])  # bends up by 0.4
    assert found.escape is None
    assert found.gradient_gain == pytest.approx(0.5**2 / (2 * 2.0), rel=1e-4)
    _, found = on_hills(batches=[Hilly(1.9, tilt=0.5) for _ in range(6)])  # bends down by 0.1, and falls by 0.5
    assert found.along_below(SURE) < 0
    assert found.escape.drop > 0.2
    assert not is_saddle(found)


def test_a_gradient_of_noise_is_no_gradient():
    """Batches that pull to either side have large gradients and no common one."""
    tilts = [0.3, -0.3, 0.3, -0.3, 0.3, -0.3]
    _, found = on_hills(batches=[Hilly(0.0, tilt) for tilt in tilts])
    assert abs(found.slope_squared) <= 2 * found.slope_error
    near = found.escape.lengths < 1
    assert (found.escape.even_errors[near] < 0.01 * found.escape.errors[near]).sum() == near.sum() - 1  # 0 at 0
    _, same = on_hills(batches=[Hilly(0.0, 0.3) for _ in tilts])
    assert same.slope_squared == pytest.approx(0.09, rel=1e-4)


def test_what_other_batches_do_not_confirm_is_dropped():
    """Of two batches one sees a ridge, the four that judge do not."""
    mixed = [Hilly(-2.0), Hilly(4.0), Hilly(4.0), Hilly(-2.0), Hilly(4.0), Hilly(4.0)]
    record, found = on_hills(batches=mixed)
    assert found.smallest == -4.0
    assert found.along == pytest.approx(2.0)
    assert found.escape is None
    assert not record.has("saddle_line")
    unsure = [Hilly(-2.0), Hilly(9.0), Hilly(-6.0), Hilly(-2.0), Hilly(9.0), Hilly(-6.0)]
    _, found = on_hills(batches=unsure)
    assert found.along < 0 < found.along_below(SURE)
    assert not is_saddle(found)


def test_a_minimum_has_no_line():
    record, found = on_hills(y=math.sqrt(2))
    assert found.smallest == pytest.approx(2.0, rel=1e-5)
    assert found.escape is None
    assert not record.has("saddle_direction")


def test_a_loss_of_zero_has_lengths_too():
    _, found = on_hills(batches=[Hilly(level=0.0) for _ in range(6)])
    _, same = on_hills(batches=[Hilly(level=1.0) for _ in range(6)])
    assert found.escape.lengths.tolist() == same.escape.lengths.tolist()
    assert found.escape.drop == pytest.approx(same.escape.drop, rel=1e-5)


def test_a_line_ends_where_the_loss_is_not_finite():
    class Cliff(Hilly):
        def loss(self, model):
            return super().loss(model) + (0.25 - model.both[1] ** 2).sqrt()

    _, found = on_hills(batches=[Cliff() for _ in range(6)])
    assert len(found.escape.lengths) > 2
    assert found.escape.lengths[-1] < 0.5
    assert np.isfinite(found.escape.losses).all()


def test_a_line_belongs_to_the_last_hessian_only():
    model, record = Weights(0.0, 0.0), None
    for step, y in ((100, 0.0), (200, math.sqrt(2))):
        with torch.no_grad():
            model.both[1] = y
        given = bench(model, [Hilly() for _ in range(6)], step=step, parameters=[{"name": "both"}])
        given.record = record = record or given.record
        measure(given)
    assert record.has("saddle_line")
    assert curvature(record).escape is None


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_batches_are_refused(n):
    with pytest.raises(CannotIsolate, match="none was held" if n == 0 else f"{n} batches are held: a direction"):
        on_hills(batches=[Hilly()] * n)


def test_nothing_trained_is_refused():
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(CannotIsolate, match="no parameter requires gradients"):
        measure(bench(model, in_batches(torch.randn(96, 2), torch.zeros(96, dtype=torch.long))))


def test_no_model_is_larger_than_memory_allows():
    model = nn.Linear(1 << 10, 1 << 9)  # 2 MiB: with its vectors more than the bench has
    with pytest.raises(CannotIsolate, match="more than probe_memory allows"):
        measure(bench(model, [held(torch.randn(4, 1 << 10), torch.zeros(4, dtype=torch.long))] * 3))


# Real trainings, of a few hundred steps each.

SGD = {"lr": 0.01}


def train(data, model, seed, *, epochs, optimizer=None, criterion=None, batch=32, encode=False):
    """What the probe finds at the end of a training, under a watch."""
    x, _, y, _ = split(data, seed)
    y = x if encode else y
    criterion = criterion or (nn.MSELoss() if y.is_floating_point() else nn.CrossEntropyLoss())
    torch.manual_seed(seed)
    model = model()
    optim = (optimizer or (lambda p: torch.optim.SGD(p, **SGD)))(model.parameters())
    settings = Settings(quiet=True, strict=True, probes={"saddle": 10**9})
    watch = trainwatch.watch(model, optim, settings=settings)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            optim.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optim.step()
    watch.finish()
    assert not watch.record.faults
    return curvature(watch.record)


def scaled(net, scale):
    for p in net.parameters():
        nn.init.normal_(p, std=scale)
    return net


def silent_head(net):
    for p in net[-1].parameters():
        nn.init.zeros_(p)
    with torch.no_grad():
        net[0].weight.mul_(1e-3)
    return net


def loud(net, factor):
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(factor)
    return net


def mlp(i, o, width=10, activation=nn.Tanh, depth=1, end=()):
    layers = []
    for n in range(depth):
        layers += [nn.Linear(width if n else i, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, o), *end)


def linear(*widths, end=()):
    layers = [nn.Linear(i, o, bias=False) for i, o in pairwise(widths)]
    return nn.Sequential(*layers, *end)


def adam(parameters):
    return torch.optim.Adam(parameters, 3e-3)


def fast(lr, **more):
    return lambda parameters: torch.optim.SGD(parameters, lr, **more)


FLAT = (nn.Flatten(0),)
SADDLES = {
    "deep linear": ("diabetes", lambda: scaled(linear(10, 8, 8, 1, end=FLAT), 3e-2), {"epochs": 20}),
    "linear": ("wine", lambda: scaled(mlp(13, 3, 8, nn.Identity), 1e-3), {"epochs": 20}),
    "tanh near zero": ("breast_cancer", lambda: scaled(mlp(30, 2), 1e-4), {"epochs": 6}),
    "silent head": ("wine", lambda: silent_head(mlp(13, 3)), {"epochs": 20}),
    "silent head, relu": ("digits", lambda: silent_head(mlp(64, 10, activation=nn.ReLU)), {"epochs": 3}),
    "autoencoder": ("wine", lambda: scaled(linear(13, 4, 13), 1e-4), {"epochs": 10, "encode": True}),
}
ELSEWHERE = {
    "early": ("digits", lambda: mlp(64, 10, 16, nn.ReLU), {"epochs": 1, "optimizer": adam}),
    "middle": ("digits", lambda: mlp(64, 10, 16), {"epochs": 3, "optimizer": fast(0.05, momentum=0.9)}),
    "end": ("wine", lambda: mlp(13, 3, 16, nn.ReLU), {"epochs": 40, "optimizer": adam}),
    "end of a regression": (
        "diabetes",
        lambda: mlp(10, 1, 12, depth=2, end=FLAT),
        {"epochs": 40, "optimizer": fast(0.05, momentum=0.9)},
    ),
    "sigmoid, early": (
        "digits",
        lambda: mlp(64, 10, 16, nn.Sigmoid),
        {"epochs": 1, "optimizer": lambda p: torch.optim.Adam(p, 1e-2)},
    ),
    "bowl": ("digits", lambda: nn.Sequential(nn.Linear(64, 10)), {"epochs": 5}),
    "flat minimum": ("diabetes", lambda: linear(10, 8, 1, end=FLAT), {"epochs": 80, "optimizer": fast(0.05)}),
    "plateau of deep sigmoids": ("digits", lambda: mlp(64, 10, depth=5, activation=nn.Sigmoid), {"epochs": 5}),
    "saturated": ("digits", lambda: loud(mlp(64, 10, 12, nn.Sigmoid, 2), 30.0), {"epochs": 3}),
    "sharp valley": (
        "diabetes",
        lambda: mlp(10, 1, 16, end=FLAT),
        {"epochs": 40, "optimizer": fast(0.4), "batch": 128},
    ),
    "sharp valley, classes": ("digits", lambda: mlp(64, 10, 16), {"epochs": 8, "optimizer": fast(1.0), "batch": 128}),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("data", "model", "how"), SADDLES.values(), ids=SADDLES)
def test_a_training_stuck_at_a_saddle_is_told(data, model, how, seed):
    found = train(data, model, seed, **how)
    assert is_saddle(found)
    assert found.products <= 15


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("data", "model", "how"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_training_that_is_elsewhere_is_not(data, model, how, seed):
    assert not is_saddle(train(data, model, seed, **how))


# The plane.


def plane_of(given):
    measure(given)
    return given.record.latest("loss_plane", "held"), curvature(given.record)


def on_a_plane(batches=None, affords=math.inf, model=None):
    batches = [Hilly() for _ in range(6)] if batches is None else batches
    given = bench(model or Weights(0.0, 0.0), batches, parameters=[{"name": "both"}])
    given.affords = affords
    return plane_of(given)


def test_the_plane_is_as_calculus_says():
    (step, table), found = on_a_plane()
    assert step == 100
    assert table.shape == (10, 10)
    y, x = table[0, 1:], table[1:, 0]  # the direction is that of y
    np.testing.assert_allclose(table[1:, 1:], 1 + x[:, None] ** 2 - y**2 + y**4 / 4, rtol=1e-5)
    best = found.escape.length
    np.testing.assert_allclose(y, best * np.linspace(-4 / 3, 4 / 3, 9), rtol=1e-6)
    fall = best**2 - best**4 / 4
    np.testing.assert_allclose(x, fall**0.5 * np.linspace(-1, 1, 9), rtol=1e-4)  # a rise as large as the fall
    assert np.isnan(table[0, 0])


def test_the_plane_shows_the_batches_that_the_line_is_made_of():
    """Its middle is where the model is, and its places along the line have the losses of the line."""
    (_, table), found = on_a_plane([Hilly(level=level) for level in (1.0, 9.0, 9.0, 3.0, 9.0, 9.0)])
    assert table[5, 5] == 2.0
    assert table[0, 8] == pytest.approx(found.escape.length)
    assert table[5, 8] == pytest.approx(2.0 - found.escape.drop, rel=1e-5)


def test_a_flat_second_axis_reaches_as_far_as_the_first():
    class Downwards(Hilly):
        def loss(self, model):
            x, y = model.both
            return 1 - y**2 + y**4 / 4 - 0.1 * x**2 + x**4

    (_, table), _ = on_a_plane([Downwards() for _ in range(6)])
    np.testing.assert_allclose(table[1:, 0], table[0, 1:])


def test_a_plane_beyond_a_cliff_has_infinite_places():
    class Cliff(Hilly):
        def loss(self, model):
            return super().loss(model) + 0 * (0.5 - model.both[0]).sqrt()

    (_, table), _ = on_a_plane([Cliff() for _ in range(6)])
    beyond = np.isinf(table[1:, 1:])
    assert beyond.all(axis=1).sum() == beyond.any(axis=1).sum() > 0  # whole rows, on one side
    assert np.isfinite(table[5, 1:]).all()


@pytest.mark.parametrize(
    ("affords", "drawn"), [(saddle.STEPS + FOR_PLANE - 1, False), (saddle.STEPS + FOR_PLANE, True)]
)
def test_a_plane_takes_time_to_spare(affords, drawn):
    assert (on_a_plane(affords=affords)[0] is not None) is drawn


def test_without_a_line_or_a_second_axis_there_is_no_plane():
    assert on_a_plane(model=Weights(0.0, math.sqrt(2)))[0] is None

    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.y = nn.Parameter(torch.zeros(1))

    class Ridge(Hilly):
        def loss(self, model):
            return 1 - model.y.square().sum() + model.y.pow(4).sum()

    table, found = on_a_plane([Ridge() for _ in range(6)], model=Single())
    assert found.escape is not None
    assert table is None


def test_the_plane_costs_what_it_says_and_leaves_no_trace():
    made = []

    class Counted(Hilly):
        def loss(self, model):
            made.append(torch.is_grad_enabled())
            return super().loss(model)

    model = Weights(0.1, 0.2)
    losses = [[lambda b=b: b.loss(model) for b in (Counted(), Counted())] for _ in range(2)]
    counts = []
    for plane in (False, True):
        made.clear()
        found = saddle_test(*losses, {"both": model.both}, memory=1 << 20, plane=plane)
        counts.append(made.count(False))
        assert (found.plane is not None) is plane
    assert counts[1] - counts[0] == 2 * 81
    assert model.both.tolist() == torch.tensor([0.1, 0.2]).tolist()


def test_the_step_that_is_proposed_leaves_the_saddle():
    """Moved by it, the net trains as one that was drawn well; left alone it stays where it is."""
    x, _, y, _ = split("wine", 0)
    torch.manual_seed(0)
    model = silent_head(mlp(13, 3))
    batches = in_batches(x, y, 16)
    source, judge = ([lambda b=b: b.loss(model) for b in part] for part in (batches[::3], batches[1::3]))
    named = dict(model.named_parameters())
    found = saddle_test(source, judge, named, memory=1 << 22)
    lengths, others = found.line[:, 0], found.line[:, 1]
    length = lengths[np.nanargmin(others)]

    def after(steps):
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        return float(F.cross_entropy(model(x), y).detach())

    alone = after(0), after(60)
    with torch.no_grad():
        for name, p in named.items():
            p.add_(found.direction[name], alpha=float(length))
    assert alone[0] - alone[1] < 0.02
    assert after(0) < 0.85 * alone[0]


def test_the_question_is_answered_without_more_precision_than_it_needs():
    from trainwatch.probes.lanczos import Ritz

    def ritz(values, bounds, complete=False):
        values = torch.tensor(values, dtype=torch.float64)
        return Ritz(values, torch.tensor(bounds, dtype=torch.float64), 9, complete, torch.eye(len(values)))

    assert answered(ritz([-1.0, 0.0, 4.0], [0.2, 9.0, 0.9]))
    assert not answered(ritz([-1.0, 0.0, 4.0], [0.3, 9.0, 0.9]))  # the lower end is not known well enough
    assert not answered(ritz([-1.0, 0.0, 4.0], [0.2, 9.0, 1.1]))  # the upper end is not
    assert answered(ritz([0.001, 4.0], [0.004, 0.1]))  # nothing of note below zero
    assert not answered(ritz([0.001, 4.0], [0.006, 0.1]))
    assert answered(ritz([-4.0, -1.0], [0.0, 0.0], complete=True))
