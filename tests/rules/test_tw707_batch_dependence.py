import pytest
import torch
from torch import nn
from tried import CE, Forward, batch, net, only, tried

from trainwatch.checks import dependence
from trainwatch.checks.batch import one_batch
from trainwatch.probes.bench import Bench
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw707_batch_dependence import BatchDependence

N, D = 16, 12
FLAT, SERIES = torch.randn(N, D, generator=torch.Generator().manual_seed(1)), torch.randn(N, 6, D)


def hidden(mix, d=D, **parts):
    return Forward(mix, hidden=nn.Linear(d, d), head=nn.Linear(d, 4), **parts)


def attend(self, x):
    return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def remember(self, x):
    return self.head(self.cells(x)[0][:, -1])


MIXING = {
    "reshaped over the batch": (lambda: hidden(lambda s, x: s.head(s.hidden(x.t().reshape(N, D)).relu())), FLAT),
    "softmax over the batch": (lambda: hidden(lambda s, x: s.head(s.hidden(x).softmax(0))), FLAT),
    "scaled by the batch": (lambda: hidden(lambda s, x: s.head(s.hidden((x - x.mean(0)) / x.std(0)).relu())), FLAT),
    "a mean that leaks little": (lambda: hidden(lambda s, x: s.head(s.hidden(x).relu()) + 0.01 * x.mean(0)[:4]), FLAT),
    "no statistics": (
        lambda: nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 4)),
        FLAT,
    ),
    "attention": (lambda: hidden(attend, attention=nn.MultiheadAttention(D, 2)), SERIES),
    "cells": (lambda: hidden(remember, cells=nn.LSTM(D, D)), SERIES),
    "placed in the batch": (
        lambda: hidden(lambda s, x: s.head((s.hidden(x) + s.places).relu()), places=nn.Parameter(torch.randn(N, D))),
        FLAT,
    ),
    "turned round": (lambda: hidden(lambda s, x: s.head(s.hidden(x).relu()).flip(0)), FLAT),
}  # fmt: skip
SOUND = {
    "batch norm and dropout": (
        lambda: nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4)),
        FLAT,
    ),
    "attention": (lambda: hidden(attend, attention=nn.MultiheadAttention(D, 2, batch_first=True)), SERIES),
    "cells": (lambda: hidden(remember, cells=nn.LSTM(D, D, batch_first=True)), SERIES),
    "dropout that stays awake": (lambda: hidden(lambda s, x: s.head(nn.functional.dropout(s.hidden(x).relu()))), FLAT),
    "coarse numbers": (lambda: net().bfloat16(), FLAT.bfloat16()),
    "of a fixed type": (lambda: hidden(lambda s, x: s.head(s.hidden(x).relu() @ torch.eye(D))), FLAT),
}


def looked_at(model, x, y=None, *, first_is_batch=False):
    """The rule on a record of what was measured of a model on a batch."""
    record = RunRecord()
    record.set_fact("subject", "preflight")
    y = torch.arange(N) % 4 if y is None else y
    given = Bench(model, {"train": []}.get, "", record, 0, 1 << 24)
    dependence.measure(given, one_batch((x, y), CE(), model), first_is_batch=first_is_batch)
    return list(BatchDependence().check(record))


@pytest.mark.parametrize("name", MIXING)
def test_fires_where_samples_mix(name):
    torch.manual_seed(0)
    make, x = MIXING[name]
    (found,) = looked_at(make(), x)
    assert found.severity == "error"
    assert max(e.value for e in found.evidence if e.value is not None) > found.evidence[0].threshold
    assert "model(x)[0].sum().backward()" in found.remedies[0].how


@pytest.mark.parametrize("name", SOUND)
def test_stays_silent_where_they_do_not(name):
    torch.manual_seed(0)
    make, x = SOUND[name]
    assert looked_at(make(), x) == []


def test_a_preflight_says_so_above_what_follows_from_it():
    torch.manual_seed(0)
    make, x = MIXING["softmax over the batch"]
    assert only(tried(make(), CE(), (x, torch.arange(N) % 4))).code == "TW707"


def test_a_dimension_of_time_that_may_come_first_is_given_the_benefit_of_the_doubt():
    x, y = torch.randn(6, N, D), torch.randn(6, N, 4)
    over_time = hidden(lambda s, x: s.head(s.cells(x)[0]), cells=nn.LSTM(D, D))
    over_both = hidden(lambda s, x: s.head(s.cells(x)[0].softmax(1)), cells=nn.LSTM(D, D))
    assert looked_at(over_time, x, y) == []
    assert len(looked_at(over_both, x, y)) == 1
    assert len(looked_at(over_time, x, y, first_is_batch=True)) == 1


@pytest.mark.parametrize("case", ["outputs in other rows", "a single sample"])
def test_abstains_where_there_is_no_row_for_each_sample(case):
    x, y = batch()
    reshaped = Forward(lambda s, x: s.net(x).reshape(-1, 2), net=net())
    model, given = (reshaped, (x, y)) if case == "outputs in other rows" else (net(), (x[:1], y[:1]))
    with pytest.raises(CannotIsolate):
        looked_at(model, *given)


def test_abstains_where_a_state_is_kept_between_batches():
    def carry(self, x):
        outputs, state = self.cells(x, self.state)
        self.state = tuple(part.detach() for part in state)
        return self.head(outputs[:, -1])

    model = hidden(carry, cells=nn.LSTM(D, D, batch_first=True))
    model.state = None
    with pytest.raises(CannotIsolate, match="two passes over the same batch differ"):
        looked_at(model, SERIES)


def test_abstains_where_outputs_do_not_depend_on_inputs():
    model = net()
    nn.init.constant_(model[0].bias, -100.0)
    with pytest.raises(NotChecked, match="hardly depend on the inputs"):
        looked_at(model, FLAT)


def row(record, key="dimension 0", kept=0.0, replaced=1.0, turned=0.0, random=0.0, size=1.0):
    record.append("batch_dependence", key, 0, [kept, replaced, turned, 1.0, size, 1e-7, random, 16.0])


@pytest.mark.parametrize(
    ("given", "fires"),
    [
        ({"kept": 2e-3}, True),
        ({"kept": 5e-4}, False),
        ({"turned": 2e-3}, True),
        ({"turned": 5e-4}, False),
        ({"turned": 1.0, "random": 1.0}, False),
        ({"kept": 2e-3, "size": 1e2}, False),  # rounding
        ({"kept": 1.5e-3, "size": 20}, False),
        ({"kept": 3e-3, "size": 20}, True),
        ({"kept": 2e3, "replaced": 1e6, "size": 1e6}, True),  # the same in another unit
    ],
)
def test_thresholds(given, fires):
    record = RunRecord()
    row(record, **given)
    with pytest.raises(NotChecked, match="preflight"):  # of a run
        list(BatchDependence().check(record))
    record.set_fact("subject", "preflight")
    assert len(list(BatchDependence().check(record))) == fires
    row(record, "dimension 1")
    assert list(BatchDependence().check(record)) == []  # of one of two dimensions


def test_abstains_with_the_reason_where_nothing_was_measured():
    record = RunRecord()
    record.set_fact("subject", "preflight")
    record.set_fact("switched_off", {"batch_dependence": "there was no time"})
    with pytest.raises(NotChecked, match="there was no time"):
        list(BatchDependence().check(record))
