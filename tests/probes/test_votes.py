"""The vote of sub-networks and the likeness of hidden units, on nets of which both are known."""

from math import comb

import numpy as np
import pytest
import torch
from torch import nn

from benches import Given, bench, blobs, held, in_batches, net, row
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.votes import BALLOTS, PASSES, measure

X, Y, XV, YV = blobs()


def measured(model, train, val=()):
    dropout = [{"name": n, "p": m.p} for n, m in model.named_modules() if isinstance(m, nn.Dropout) and m.p]
    given = bench(model, train, val, regularisation={"dropout": dropout})
    measure(given)
    return given


def likeness(given):
    return {key: row(given, "co_adaptation", key) for key in given.record.keys("co_adaptation")}


class Coin(nn.Module):
    """An output of 0 that dropout of p = 1 / 2 makes +1 or -1, with a first weight before it."""

    def __init__(self):
        super().__init__()
        self.first, self.drop = nn.Linear(1, 4, bias=False), nn.Dropout(0.5)

    def forward(self, x):
        ones = torch.ones(len(x), 1) + 0 * self.first(x).sum()
        return (self.drop(ones) - 1).squeeze(1)


def test_a_vote_averages_what_single_passes_miss_by():
    """Of m independent errors of size 1 the mean has a square of 1 / m; one pass in evaluation mode has none."""
    x = torch.randn(2000, 1)
    given = measured(Coin(), in_batches(x, torch.zeros(2000), 250, function="mse_loss"))
    alone, vote, error, single, passes, samples = row(given, "votes", "train")
    assert (alone, single, passes, samples) == (0.0, pytest.approx(1.0), PASSES, 2000)
    assert vote == pytest.approx(1 / PASSES, abs=5 * error)
    assert 0 < error < 0.01


def test_classes_vote_by_their_probabilities():
    """Logits of +-20 that dropout takes away or doubles: the mean of probabilities is no softmax of mean logits."""

    class Blunt(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return 20 * self.drop(torch.ones(len(x), 1)) * torch.tensor([1.0, -1.0])

    x, y = torch.randn(1000, 2), torch.zeros(1000, dtype=torch.long)
    _, vote, error, single, *_ = row(measured(Blunt(), in_batches(x, y, 125)), "votes", "train")
    k = np.arange(PASSES + 1)
    chances = np.array([comb(PASSES, i) for i in k]) / 2**PASSES
    assert vote == pytest.approx(float((chances * -np.log(1 - k / (2 * PASSES))).sum()), abs=5 * error)
    assert single == pytest.approx(np.log(2) / 2, abs=0.02)


@pytest.mark.parametrize("function", BALLOTS)
def test_passes_that_agree_vote_as_one(function):
    """With dropout that hardly ever drops the vote is the pass in evaluation mode, whatever the criterion."""
    whole = function in ("cross_entropy", "nll_loss")
    y = torch.arange(64) % 3 if whole else torch.rand(64, 3)
    last = {"nll_loss": nn.LogSoftmax(1), "binary_cross_entropy": nn.Sigmoid()}.get(function, nn.Identity())
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(1e-9), nn.Linear(5, 3), last)
    alone, vote, *_ = row(measured(model, in_batches(X[:64], y, function=function)), "votes", "train")
    assert vote == pytest.approx(alone, rel=1e-4)


def test_units_that_are_copies_are_alike_and_independent_ones_are_not():
    x = torch.randn(4000, 4)
    alike, apart = (nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 1)) for _ in range(2))
    with torch.no_grad():
        alike[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [-2, 0, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]]))
        apart[0].weight.copy_(torch.eye(4))
    batches = in_batches(x, x[:, 0], 500, function="mse_loss")
    found = likeness(measured(alike, batches))
    assert found == {"1": [pytest.approx(1.0, abs=1e-5), 3, 4000]}, "what is constant does not count"
    found = likeness(measured(apart, batches))
    assert found["1"][0] < 0.05
    assert found["1"][1] == 4


def test_it_looks_before_each_dropout_on_validation_and_not_at_the_inputs():
    model = nn.Sequential(nn.Dropout(0.1), *net(6, 16, 3, dropout=0.5))
    given = measured(model, in_batches(X, Y), in_batches(XV, YV))
    assert likeness(given).keys() == {"3"}
    assert row(given, "votes", "val")[-1] == len(XV)
    assert likeness(measured(net(6, 16, 3), in_batches(X, Y))).keys() == {"3"}


def test_channels_of_images_are_units():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(3 * 36, 2))
    found = likeness(measured(model, in_batches(torch.randn(32, 1, 8, 8), torch.arange(32) % 2, 16)))
    assert found["2"][1:] == [3, 32]


def test_a_transformer_layer_that_torch_would_run_as_one_operation_drops_too():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last = layer, nn.Linear(8, 2)

        def forward(self, x):
            return self.last(self.layer(x).mean(1))

    alone, _, _, single, *_ = row(
        measured(Mean(), in_batches(torch.randn(32, 5, 8), torch.arange(32) % 2)), "votes", "train"
    )
    assert single != pytest.approx(alone, rel=1e-4)


def test_only_dropout_wakes_and_no_trace_is_left():
    model, state = net(6, 16, 3, dropout=0.5, norm=True).train(), torch.get_rng_state()
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    model.eval()
    with torch.no_grad():
        plain = nn.functional.cross_entropy(model(X), Y).item()
    model.train()
    found = [row(measured(model, in_batches(X, Y)), "votes", "train") for _ in range(2)]
    assert found[0] == found[1]
    assert found[0][0] == pytest.approx(plain, rel=1e-5)
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(m.training for m in model.modules())
    no_batch_effect = bench(model, in_batches(X, Y, 1)[:4], regularisation={"dropout": [{"name": "3", "p": 0.5}]})
    measure(no_batch_effect)  # batch norm in training mode would refuse single samples


def test_without_dropout_there_is_no_vote():
    given = measured(net(6, 16, 3), in_batches(X, Y))
    assert not given.record.has("votes")
    assert given.record.has("co_adaptation")


def test_what_cannot_be_averaged_is_told_and_likeness_is_kept():
    given = bench(net(6, 16, 3, dropout=0.5), [Given(X, len(X))], regularisation={"dropout": [{"name": "2", "p": 0.5}]})
    with pytest.raises(CannotIsolate, match="cannot be averaged"):
        measure(given)
    assert given.record.has("co_adaptation")
    with pytest.raises(CannotIsolate):
        measure(bench(net(6, 16, 3), []))


def test_likeness_of_a_kind_of_batch_that_is_constant_is_left_out():
    assert likeness(measured(net(6, 16, 3), [held(torch.ones(8, 6), torch.arange(8) % 3)])) == {}
