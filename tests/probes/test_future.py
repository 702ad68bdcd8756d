"""Exchanging what comes later: which targets are the next inputs, in whatever layout, and what then changes."""

from collections import UserDict
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benches import bench, held
from trainwatch.capture import interception
from trainwatch.capture.batches import held_step
from trainwatch.probes import future
from trainwatch.probes.isolation import CannotIsolate

N, T, V = 6, 9, 5


def tokens(n=N, steps=T + 1, seed=0):
    return torch.randint(0, V, (n, steps), generator=torch.Generator().manual_seed(seed))


class Reader(nn.Module):
    """Says of each position a function of itself and what is `reach` behind it, by sample, position and class."""

    def __init__(self, reach=0, time_first=False, flat=False, between=False):
        super().__init__()
        self.table = nn.Embedding(V, V)
        self.reach, self.time_first, self.flat, self.between = reach, time_first, flat, between

    def forward(self, x):
        x = x.argmax(2) if x.is_floating_point() and x.ndim == 3 and x.shape[2] == V else x.long()
        found = self.table(x.T if self.time_first else x).cumsum(1)
        found = torch.cat([found[:, self.reach :], found[:, : self.reach]], 1) if self.reach else found
        found = found.transpose(0, 1) if self.time_first else found
        found = found.flatten(0, 1) if self.flat else found
        return found.movedim(-1, 1) if self.between else found


def measured(model, x, y, **options):
    given = bench(model, [held(x, y, **options)])
    future.measure(given)
    ((name, row),) = [(key, given.record.latest("future", key)[1].tolist()) for key in given.record.keys("future")]
    return name, row


S = tokens()
X, Y = S[:, :-1], S[:, 1:]
SQUARE = tokens(T, T + 1)
LEFT_OUT = torch.where(torch.arange(T) % 3 == 0, -100, Y)
PADDED = torch.where(torch.arange(T) < T - 2, Y, 0)
LAYOUTS = {
    "samples first": (X, Y, {"between": True}),
    "one after the other": (X, Y.flatten(), {"flat": True}),
    "time first": (X.T, Y.T.flatten(), {"time_first": True, "flat": True}),
    "time first, classes between": (X.T, Y.T, {"time_first": True, "between": True}),
    "as many samples as positions": (SQUARE[:, :-1], SQUARE[:, 1:], {"between": True}),
    "as many samples as positions, time first": (
        SQUARE[:, :-1].T, SQUARE[:, 1:].T.flatten(), {"time_first": True, "flat": True}
    ),
    "as many classes as positions": (S[:, :V], S[:, 1 : V + 1], {"between": True}),
    "some left out": (X, LEFT_OUT.flatten(), {"flat": True}),
    "padded": (X, PADDED.flatten(), {"flat": True, "ignore_index": 0}),
    "as one-hot vectors": (nn.functional.one_hot(X, V).float(), Y.flatten(), {"flat": True}),
}  # fmt: skip
OF_LOSS = ("ignore_index",)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reach", [0, 1])
def test_what_comes_later_is_seen_or_not_in_every_layout(layout, reach):
    x, y, options = LAYOUTS[layout]
    torch.manual_seed(0)
    of_loss = {name: value for name, value in options.items() if name in OF_LOSS}
    model = Reader(reach, **{name: value for name, value in options.items() if name not in OF_LOSS})
    name, (before, behind, positions) = measured(model, x, y, **of_loss)
    assert (name, positions) == ("input", V if "classes as" in layout else T)
    assert (before > 0) == (reach > 0)
    assert behind > 0


def test_one_target_less_than_positions_is_enough():
    class Shortened(Reader):
        def forward(self, x):
            return super().forward(x)[:, :-1].flatten(0, 1)

    torch.manual_seed(0)
    for reach in (0, 1):
        _, (before, _, positions) = measured(Shortened(reach), X, X[:, 1:].flatten())
        assert (before > 0, positions) == (reach > 0, T - 1)


def test_what_the_loss_leaves_out_may_see_all():
    class Prompted(Reader):
        def forward(self, x):  # the first six positions are a prompt, which is read in both directions
            found = self.table(x)
            prompt = found[:, :6].mean(1, keepdim=True).expand(-1, 6, -1)
            return torch.cat([prompt, found[:, 6:].cumsum(1) + prompt[:, :1]], 1).flatten(0, 1)

    torch.manual_seed(0)
    after = torch.where(torch.arange(T) < 6, -100, Y)
    assert measured(Prompted(), X, after.flatten())[1][0] == 0
    assert measured(Prompted(), X, Y.flatten())[1][0] > 0


def test_blocks_of_positions_that_see_each_other_are_seen():
    class Blocks(Reader):
        def forward(self, x):
            found = self.table(x).unflatten(1, (-1, 4))
            return found.mean(2, keepdim=True).expand_as(found).flatten(1, 2).flatten(0, 1)

    torch.manual_seed(0)
    long = tokens(steps=17)
    assert measured(Blocks(), long[:, :-1], long[:, 1:].flatten())[1][0] > 0


def test_numbers_that_are_infinitely_unlikely_are_no_change():
    class Masked(Reader):
        def forward(self, x):
            found = super().forward(x)
            return torch.cat([found, torch.full_like(found[:, :1], -torch.inf)], 1)

    torch.manual_seed(0)
    _, row = measured(Masked(flat=True), X, Y.flatten())
    assert row[0] == 0 < row[1]
    assert all(value < float("inf") for value in row)


def test_a_decoder_is_asked_of_its_own_input():
    class Translator(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(V, V)

        def forward(self, source, target):
            return (self.table(target).cumsum(1) + self.table(source).mean(1, keepdim=True)).flatten(0, 1)

    torch.manual_seed(0)
    batch = held(X, X[:, 1:].flatten())
    given = bench(Translator(), [replace(batch, args=(X, X[:, :-1]))])
    future.measure(given)
    assert given.record.latest("future", "input[1]")[1][0] == 0


class Series(nn.Module):
    def __init__(self, both_ways):
        super().__init__()
        self.cells = nn.GRU(2, 4, batch_first=True, bidirectional=both_ways)
        self.head = nn.Linear(8 if both_ways else 4, 2)

    def forward(self, x):
        return self.head(self.cells(x)[0])


@pytest.mark.parametrize("n", [2, 6])
@pytest.mark.parametrize("both_ways", [False, True])
def test_series_of_numbers(both_ways, n):
    torch.manual_seed(0)
    series = torch.randn(n, T + 1, 2).cumsum(1)
    _, (before, behind, _) = measured(Series(both_ways), series[:, :-1], series[:, 1:], function="mse_loss")
    assert (before > 0) == both_ways
    assert behind > 0


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_single_series_whose_time_comes_last(both_ways):
    class Turned(Series):
        def forward(self, x):
            return super().forward(x.transpose(1, 2)).transpose(1, 2)

    torch.manual_seed(0)
    series = torch.randn(1, 2, 30).cumsum(2)
    _, (before, _, positions) = measured(Turned(both_ways), series[..., :-1], series[..., 1:], function="mse_loss")
    assert (before > 0, positions) == (both_ways, 29)


OTHERS = {
    "tags": (X, tokens(seed=1)[:, 1:].flatten()),
    "the inputs themselves": (X, X.flatten()),
    "those before": (X[:, 1:], X[:, :-1].flatten()),
    "some gaps": (X, torch.where(torch.arange(T) < T - 2, -100, X).flatten()),
    "hardly any is told": (X, torch.where(torch.arange(T) > 0, -100, Y).flatten()),
    "inputs that stand still": (torch.ones_like(X), torch.ones_like(Y).flatten()),
    "short ones": (X[:, :3], Y[:, :3].flatten()),
    "other kinds of numbers": (X.float(), Y.flatten()),
}


@pytest.mark.parametrize("others", OTHERS)
def test_other_targets_are_left_alone(others):
    x, y = OTHERS[others]
    model = Reader(1, flat=True)
    with pytest.raises(CannotIsolate, match="not recognised as the inputs one position further"):
        measured(model, x, y)


def test_abstains_where_equal_passes_differ_or_predictions_are_not_seen():
    class Counting(Reader):
        def forward(self, x):
            self.calls = getattr(self, "calls", 0) + 1
            return super().forward(x) * self.calls

    class Broken(Reader):
        def forward(self, x):
            return super().forward(x) * float("nan")

    class Mixing(Reader):
        def __init__(self):
            super().__init__(flat=True)
            self.norm = nn.BatchNorm1d(V, track_running_stats=False)

    for model, why in (
        (Counting(0, flat=True), "two passes"),
        (Broken(0, flat=True), "no numbers"),
        (Mixing(), "batch norm without running statistics"),
    ):
        with pytest.raises(CannotIsolate, match=why):
            measured(model, X, Y.flatten())
    given = bench(Reader(), [object()])
    with pytest.raises(CannotIsolate, match="cannot be seen"):
        future.measure(given)


def test_outputs_that_take_too_much_memory_are_left_alone():
    given = bench(Reader(flat=True), [held(X, Y.flatten())])
    given._most_bytes = 2 * 4 * N * T * V - 1
    with pytest.raises(CannotIsolate, match="probe_memory"):
        future.measure(given)


STRANGE = {
    "complex numbers": torch.zeros(N, T, dtype=torch.complex64),
    "sparse": torch.eye(N).to_sparse(),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_other_tensors_beside_are_left_alone(kind):
    class Two(Reader):
        def forward(self, x, _):
            return super().forward(x)

    torch.manual_seed(0)
    given = bench(Two(flat=True), [replace(held(X, Y.flatten()), args=(X, STRANGE[kind]))])
    future.measure(given)
    assert given.record.latest("future", "input[0]")[1][0] == 0


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@pytest.mark.parametrize("kind", [lambda x, y: Pair(x, y), lambda x, y: UserDict(x=x, labels=y)])
def test_containers_that_cannot_be_built_again_are_told(kind):
    class Taking(Step):
        def training_step(self, batch, index):
            return super().training_step(
                tuple(batch) if isinstance(batch, tuple) else (batch["x"], batch["labels"]), index
            )

    with pytest.raises(NotImplementedError, match="container of its own kind"):
        future.measure(bench(Taking(0), [held_step(0, kind(X, Y), 0)]))


def test_the_batch_and_the_model_stay_as_they_are():
    class InPlace(Reader):
        def forward(self, x):
            found = super().forward(x)
            x.zero_()
            return found

    torch.manual_seed(0)
    x, model = X.clone(), InPlace(1, flat=True)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    given = bench(model, [replace(held(x, Y.flatten()), versions=((x, x._version),))])
    future.measure(given)
    assert given.record.latest("future", "input")[1][0] > 0
    assert torch.equal(x, X)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert model.training


class Step(Reader):
    """A trainer's module, whose step computes so many losses."""

    def __init__(self, reach, losses=1):
        super().__init__(reach)
        self.losses = losses

    def training_step(self, batch, _):
        x, y = batch
        return sum(F.cross_entropy(self(x).flatten(0, 1), y.flatten()) for _ in range(self.losses))


@pytest.mark.parametrize("reach", [0, 1])
def test_within_the_step_of_a_trainer(reach):
    torch.manual_seed(0)
    given = bench(Step(reach), [held_step(0, (X, Y), 0)])
    future.measure(given)
    (name,) = given.record.keys("future")
    assert name == "batch[0]"
    assert (given.record.latest("future", name)[1][0] > 0) == (reach > 0)


@pytest.mark.parametrize("losses", [0, 2])
def test_a_step_with_no_single_loss_tells_nothing(losses):
    class Weighed(Step):
        def training_step(self, batch, index):
            return super().training_step(batch, index) + self.table.weight.sum()

    with pytest.raises(NotImplementedError, match="cannot be seen"):
        future.measure(bench(Weighed(0, losses), [held_step(0, (X, Y), 0)]))


class Ear(list):
    """A listener that counts what it is told."""

    def on_loss(self, call):
        self.append(call.name)


def test_losses_are_collected_and_told_to_nobody_else():
    ear, x, y = Ear(), torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    interception.subscribe(ear)
    try:
        with interception.unheard():
            with pytest.raises(RuntimeError, match="stop"), interception.losses_collected() as calls:
                F.cross_entropy(x, y)
                raise RuntimeError("stop")
            F.cross_entropy(x, y)
        assert ([call.name for call in calls], ear) == (["cross_entropy"], [])
        F.mse_loss(x, x)
        assert ear == ["mse_loss"]
    finally:
        interception.unsubscribe(ear)
    with interception.losses_collected() as calls:  # nothing is watched
        F.cross_entropy(x, y)
    assert len(calls) == 1
    assert not interception._listeners
