import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainwatch
from trainwatch.probes import rank
from trainwatch.probes.governor import Governor
from trainwatch.symptoms.useful_motion import weight_ranks


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
def test_ranks_of_known_spectra(shape):
    flat = torch.zeros(shape)
    flat[range(10), range(10)] = 3.0
    assert rank.ranks(flat) == pytest.approx((10, 10, 9))
    one = torch.outer(torch.randn(shape[0]), torch.randn(shape[1]))
    assert rank.ranks(one) == pytest.approx((1, 1, 1), rel=1e-3)
    two = torch.zeros(shape)
    two[0, 0], two[1, 1] = 2.0, 1.0
    entropy = np.exp(-(0.8 * np.log(0.8) + 0.2 * np.log(0.2)))
    assert rank.ranks(two) == pytest.approx((1.25, entropy, 2))


def test_a_random_matrix_has_nearly_full_rank():
    torch.manual_seed(0)
    stable, entropy, kept = rank.ranks(torch.randn(64, 256))
    assert 20 < stable < 64
    assert 45 < entropy < 64
    assert 45 < kept < 64


def test_nothing_and_what_is_not_finite():
    assert rank.ranks(torch.zeros(4, 5)) == (0.0, 0.0, 0.0)
    assert np.isnan(rank.ranks(torch.full((4, 5), np.nan))).all()


def test_the_cheapest_come_first_and_the_dear_are_left_out(monkeypatch):
    facts = [{"kind": "weight", "shape": [n, n], "numel": n * n} for n in (100, 10, 3000, 50)]
    facts += [{"kind": "bias", "shape": [7], "numel": 7}, {"kind": "weight", "shape": [8, 2, 3, 3], "numel": 144}]
    assert list(rank._affordable(facts)) == [5, 1, 3, 0]
    monkeypatch.setattr(rank, "WORK", 11.0 * 50**3 + 30000)
    assert list(rank._affordable(facts)) == [5, 1, 3]


def run(**settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(24, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(32, 8), torch.randint(0, 3, (32,))
    with trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, **settings}) as watch:
        for _ in range(45):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return watch.record


def test_it_is_measured_once_at_the_end():
    made = run(probes={"rank": 10**9}, flush_every=10)
    series = made.series("weight_rank", "end")
    assert series.steps.tolist() == [45]
    assert np.isnan(series.values[0, [1, 3]]).all()
    assert [(p["name"], whole) for p, _, whole in weight_ranks(made)] == [("1.weight", 3), ("3.weight", 3)]
    assert all(1 <= kept <= 3 for _, kept, _ in weight_ranks(made))


def test_only_who_names_it_or_asks_for_all_gets_it_earlier():
    requests = [type("Request", (), {"kind": "rank", "priority": 1.0})()]
    for mode, early in (("auto", None), ("all", "rank"), ({"rank": 20}, "rank")):
        governor = Governor(mode, ["rank"], {"rank"})
        assert governor.next(requests, 40, 1.0) == early
        assert governor.next(requests, 40, 1.0, last=True) == "rank"
