"""The motion of weights: which coordinates are followed, and what their snapshots amount to."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch
from trainwatch.capture.deferred import DeferredReads
from trainwatch.capture.motion import MOST, Motion, _coordinates
from trainwatch.record import RunRecord

X, Y = torch.randn(16, 8), torch.randint(0, 3, (16,))


def plainly(function, *args):
    return function(*args)


def follow(parameters, moves, *, flush_every=50, embeddings=None, last=True, quantity="motion"):
    """Rows of `motion`, or of `weights`, for parameters to which each step adds what `moves(step)` gives."""
    motion, reads, record = Motion(parameters, embeddings or [False] * len(parameters)), DeferredReads(), RunRecord()

    def flush(updates, last=False):
        def put(step, motion, weights):
            record.append("motion", "o", step, motion)
            record.append("weights", "o", step, weights)

        motion.flush(reads, put, plainly, updates, last=last)
        reads.deliver()

    motion.begin()
    steps = 0
    for steps, changes in enumerate(moves, 1):
        with torch.no_grad():
            for parameter, change in zip(parameters, changes, strict=True):
                parameter += change
        if motion.due(steps):
            motion.stepped(steps)
        if steps % flush_every == 0:
            flush(steps)
    if last:
        flush(steps, last=True)
    series = record.series(quantity, "o")
    return motion, (np.zeros((0, 0, 0)) if series is None else series.values), series


def test_a_straight_path():
    weight = torch.ones(40, 40)
    _, rows, series = follow([weight], ([0.01] for _ in range(100)))
    assert series.steps.tolist() == [50, 100]
    update, distance, path, cosine = rows[0, 0]
    assert distance == pytest.approx(0.5, rel=1e-4)
    assert path == pytest.approx(0.5, rel=1e-4)
    assert cosine == pytest.approx(1.0, rel=1e-4)
    assert update == pytest.approx(np.mean([0.01 / (1 + 0.01 + 0.1 * k) for k in range(5)]), rel=1e-3)
    assert rows[1, 0, 1] == pytest.approx(1.0, rel=1e-4)
    assert rows[1, 0, 2] == pytest.approx(1.0, rel=1e-4)


def test_norms_of_weights():
    weight = torch.tensor([[3.0, -1.0], [0.0, 0.01]])
    _, rows, series = follow([weight], ([torch.zeros(2, 2)] for _ in range(60)), quantity="weights")
    assert series.steps.tolist() == [50, 60]
    assert rows[0, 0].tolist() == pytest.approx([4.01 / 4, (10.0001 / 4) ** 0.5, 3.0, 0.25, 0.5, 0.0])


def test_weights_that_cross_zero_at_every_step():
    """Half of them; one that reaches zero has not crossed it."""
    weight = torch.tensor([0.5, 0.5, 2.0, 1.0])
    moves = ([torch.tensor([-1.0, -1.0, 0.0, -1.0]) * (-1) ** n] for n in range(50))
    _, rows, _ = follow([weight], moves, quantity="weights")
    assert rows[0, 0, 5] == 0.5


def test_weights_that_are_lost_have_no_length():
    weight = torch.ones(4)
    _, rows, _ = follow([weight], ([torch.full((4,), np.inf)] for _ in range(50)), quantity="weights")
    assert np.isinf(rows[0, 0, :3]).all()


def test_to_and_fro_is_a_long_path_to_nowhere():
    weight = torch.ones(40, 40)
    _, rows, _ = follow([weight], ([0.01 if n // 10 % 2 == 0 else -0.01] for n in range(100)))
    assert rows[-1, 0, 1] == pytest.approx(0.0, abs=1e-5)
    assert rows[-1, 0, 2] == pytest.approx(1.0, rel=1e-4)
    assert rows[-1, 0, 3] == pytest.approx(-1.0, rel=1e-4)


def test_the_short_stretch_at_the_end_counts_for_the_path_and_not_for_the_cosine():
    _, rows, series = follow([torch.ones(40, 40)], ([0.01 if n < 50 else -0.01] for n in range(55)))
    assert series.steps.tolist() == [50, 55]
    np.testing.assert_allclose(rows[-1, 0, 1:3], [0.45, 0.55], rtol=1e-4)
    assert np.isnan(rows[-1, 0, 3])


def test_a_random_walk_is_told_from_drift():
    draw = torch.Generator().manual_seed(0)
    weight = torch.ones(64, 64)
    _, rows, _ = follow([weight], ([0.01 * torch.randn(64, 64, generator=draw)] for _ in range(1000)))
    _, distance, path, _ = rows[-1, 0]
    assert distance / path * 100**0.5 == pytest.approx(1.0, rel=0.05)  # of a hundred stretches
    assert np.abs(rows[:, 0, 3]).max() < 0.1


@pytest.mark.parametrize("flush_every", [3, 7, 10, 50, 1000])
def test_it_does_not_matter_when_it_is_flushed(flush_every):
    draw = torch.Generator().manual_seed(0)
    moves = [[torch.randn(8, 8, generator=draw)] for _ in range(105)]
    _, rows, series = follow([torch.ones(8, 8)], moves, flush_every=flush_every)
    _, whole, _ = follow([torch.ones(8, 8)], moves, flush_every=105)
    assert series.steps[-1] == 105
    np.testing.assert_allclose(rows[-1, 0, 1:3], whole[-1, 0, 1:3], rtol=1e-5)


def test_parameters_are_kept_apart():
    one, other, still = torch.ones(30, 30), torch.ones(7), torch.ones(5, 3)
    _, rows, _ = follow([one, other, still], ([0.01, 0.02, 0.0] for _ in range(50)))
    np.testing.assert_allclose(rows[-1, :, 1], [0.5, 1.0, 0.0], rtol=1e-4)
    assert rows[-1, 2, 0] == 0.0
    assert np.isnan(rows[-1, 2, 3])


def test_what_began_at_zero_has_no_relative_distance():
    _, rows, _ = follow([torch.zeros(4, 4)], ([0.01] for _ in range(50)))
    assert np.isnan(rows[-1, 0, 1:3]).all()
    assert rows[-1, 0, 0] > 0


def test_updates_that_half_precision_swallows_are_zero():
    weight = torch.ones(16, 16, dtype=torch.bfloat16)
    _, rows, _ = follow([weight], ([1e-3] for _ in range(50)))
    assert rows[-1, 0, :3].tolist() == [0.0, 0.0, 0.0]
    wide = torch.ones(16, 16, dtype=torch.bfloat16)
    _, rows, _ = follow([wide, torch.ones(3)], ([2**-7, 0.01] for _ in range(50)))
    assert rows[-1, 0, 1] == pytest.approx(50 * 2**-7)


def test_what_is_not_finite_is_said():
    _, rows, _ = follow([torch.ones(4, 4), torch.ones(3)], ([np.inf, 0.0] for _ in range(50)))
    assert np.isinf(rows[-1, 0, :3]).all()
    assert np.isfinite(rows[-1, 1, :3]).all()


@pytest.mark.parametrize(
    "shape", [(1,), (1023,), (1025,), (2047,), (64, 64), (300, 7), (7, 300), (32, 16, 3, 3), (1000, 1000), (1, 1), ()]
)
@pytest.mark.parametrize("offset", [0.0, 0.999])
def test_coordinates_are_few_and_miss_no_row_and_no_column(shape, offset):
    places = torch.arange(int(np.prod(shape)), dtype=torch.float64).reshape(shape)
    (view,) = _coordinates(places, offset, False)
    found = view.long().numpy()
    assert view.untyped_storage().data_ptr() == places.untyped_storage().data_ptr()
    assert 0 < len(found) <= MOST
    assert len(found) >= min(places.numel(), MOST) // 4
    assert len(set(found.tolist())) == len(found)
    if len(shape) == 2:
        rows, columns = np.unravel_index(found, shape)
        assert len(set(rows)) >= min(shape[0], len(found)) * 0.99
        assert len(set(columns)) == min(shape[1], len(found))


def test_weights_in_another_order_in_memory_are_followed():
    last = torch.ones(8, 4, 3, 3).to(memory_format=torch.channels_last)
    turned = torch.ones(6, 5).t()
    _, rows, _ = follow([last, turned], ([0.01, 0.01] for _ in range(50)))
    np.testing.assert_allclose(rows[-1, :, 1], 0.5, rtol=1e-4)


@pytest.mark.parametrize(("rows", "width"), [(1000, 8), (1000, 512), (5, 8), (40000, 1), (3, 5000)])
def test_whole_rows_of_an_embedding(rows, width):
    places = torch.arange(rows * width, dtype=torch.float64).reshape(rows, width)
    views = _coordinates(places, 0.5, True)
    assert sum(map(len, views)) <= MOST + len(views)
    assert len(views) >= min(rows, 16) // 2
    assert len({int(v[0]) // width for v in views}) == len(views)
    assert all(len(v) == width for v in views) or width > 64


def test_an_embedding_is_followed_by_its_rows():
    weight = torch.ones(100, 512)
    _, rows, _ = follow([weight], ([0.01] for _ in range(50)), embeddings=[True])
    assert rows[-1, 0, 1] == pytest.approx(0.5, rel=1e-4)


def test_swapped_data_are_found_again_and_not_kept_alive():
    parameter = nn.Parameter(torch.ones(20, 20))
    motion = Motion([parameter], [False])
    motion.begin()
    reads, found = DeferredReads(), []
    for step in range(1, 31):
        parameter.data = parameter.data + 0.01
        if motion.due(step):
            motion.stepped(step)
    assert motion._views == []
    motion.flush(reads, lambda step, row, _: found.append((step, row)), plainly, 30)
    reads.deliver()
    ((step, row),) = found
    assert step == 30
    assert row[0, 1] == pytest.approx(0.3, rel=1e-4)


def sparse():
    return torch.ones(4, 4).to_sparse()


@pytest.mark.parametrize("make", [lambda: torch.ones(3, 3, device="meta"), sparse], ids=["meta", "sparse"])
def test_what_has_no_plain_values_is_not_measured(make):
    motion, rows, _ = follow([make()], [], last=False)
    assert motion.reason == "no parameter of the optimiser is a plain tensor with all its values in memory"
    assert len(rows) == 0
    motion = Motion([make(), torch.ones(3)], [False, False])
    assert motion.reason == ""


def test_a_changed_shape_ends_it():
    parameter = nn.Parameter(torch.ones(4, 4))
    motion = Motion([parameter], [False])
    parameter.data = torch.ones(4, 2)
    motion.stepped(10)
    assert motion.reason == "the shape of a parameter changed"
    motion.stepped(20)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def run(model, optimizer, steps=60, between=None, **settings):
    with trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, **settings}) as watch:
        for step in range(steps):
            if between is not None:
                between(step)
            optimizer.zero_grad()
            F.cross_entropy(model(X), Y).backward()
            optimizer.step()
    return watch.record


def test_a_watched_run_records_how_far_each_parameter_got():
    model = net()
    start = [p.detach().clone() for p in model.parameters()]
    made = run(model, torch.optim.SGD(model.parameters(), lr=0.1))
    steps, rows = made.series("motion", "default").history()
    assert steps.tolist() == [50, 60]
    assert made.series("motion", "default").provenance == {"every": 10}
    assert [facts["name"] for facts in made.facts["parameters"]] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    true = [float((p.detach() - s).norm() / s.norm()) for p, s in zip(model.parameters(), start, strict=True)]
    np.testing.assert_allclose(rows[-1, :, 1], true, rtol=1e-4)


def test_the_start_is_what_the_weights_are_before_the_first_step():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    made = run(model, optimizer, between=lambda step: step or nn.init.ones_(model[0].weight))
    assert made.series("motion", "default").values[-1, 0, 1] == 0.0


def test_loaded_weights_are_a_jump_and_no_motion():
    model = net()
    other = {name: value + 1.0 for name, value in net().state_dict().items()}
    made = run(model, torch.optim.SGD(model.parameters(), lr=0.0),
               between=lambda step: step == 35 and model.load_state_dict(other))  # fmt: skip
    _, distance, path, _ = made.series("motion", "default").values[-1, 0]
    assert distance > 1.0
    assert path == 0.0


def test_several_optimisers_are_followed_each_for_itself():
    model = net()
    body, head = (torch.optim.SGD(model[i].parameters(), lr) for i, lr in ((0, 0.0), (2, 0.1)))
    with trainwatch.watch(model, {"body": body, "head": head}, settings={"quiet": True, "strict": True}) as watch:
        for _ in range(30):
            model.zero_grad()
            F.cross_entropy(model(X), Y).backward()
            body.step()
            head.step()
    assert watch.record.series("motion", "body").values[-1, :, 1].tolist() == [0.0, 0.0]
    assert (watch.record.series("motion", "head").values[-1, :, 1] > 0).all()


def test_weights_that_stayed_are_looked_at_for_signs_of_training():
    model = net()
    made = run(model, torch.optim.SGD(model.parameters(), lr=0.0))
    assert made.facts["still"] == {"0.weight": True, "2.weight": True}
    model = net()
    with torch.no_grad():
        model[0].weight += 0.3 * torch.outer(torch.randn(16), torch.randn(8))
    made = run(model, torch.optim.SGD(model.parameters(), lr=0.0))
    assert made.facts["still"] == {"0.weight": False, "2.weight": True}
    assert "still" not in run(model, torch.optim.SGD(model.parameters(), lr=0.1)).facts
