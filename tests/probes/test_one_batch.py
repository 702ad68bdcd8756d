import pytest
import torch

from benches import bench, held, net, row
from trainwatch.probes import one_batch
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.rates import highest_rates, set_rates
from trainwatch.record import RunRecord

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 10


def fit(model, optimizer, rates=()):
    given = bench(model, [held(X, Y)], optimizer=optimizer)
    for step, rate in rates:
        given.record.append("lr", "default/0", step, rate)
    one_batch.measure(given)
    return row(given, "one_batch_fit", "train")


def test_a_sound_net_fits_a_batch_with_either_optimiser():
    model = net(8, 128, 10)
    before, own, reference, samples = fit(model, torch.optim.Adam(model.parameters(), lr=1e-2))
    assert own < 0.3 * before
    assert reference < 0.3 * before
    assert samples == 32


def test_a_tiny_step_size_keeps_the_run_alone_from_it():
    model = net(8, 128, 10)
    before, own, reference, _ = fit(model, torch.optim.SGD(model.parameters(), lr=1e-5))
    assert own > 0.99 * before
    assert reference < 0.3 * before


def test_dropout_keeps_the_run_alone_from_it():
    model = net(8, 128, 128, 10, dropout=0.95)
    before, own, reference, _ = fit(model, torch.optim.Adam(model.parameters(), lr=3e-3))
    assert own > 0.6 * before
    assert reference < 0.1 * before


def test_one_unit_keeps_both_from_it():
    torch.manual_seed(1)
    model = net(8, 1, 10)
    before, own, reference, _ = fit(model, torch.optim.Adam(model.parameters(), lr=1e-2))
    assert min(own, reference) > 0.7 * before


def test_the_rate_is_the_highest_of_the_run_not_that_at_its_end():
    model = net(8, 128, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-8)
    assert fit(model, optimizer)[1] == pytest.approx(fit(model, optimizer)[0], rel=1e-3)
    before, own, _, _ = fit(model, optimizer, [(0, 0.01), (50, 0.3), (99, 1e-8)])
    assert own < 0.8 * before


def test_the_optimiser_keeps_its_state_and_batch_norm_its_statistics():
    model = net(8, 64, 10, norm=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    torch.nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    moments = [v for s in optimizer.state.values() for v in s.values()]
    versions = [v.clone() for v in moments]
    fit(model, optimizer)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(moments, versions, strict=True))
    assert optimizer.param_groups[0]["lr"] == 1e-2


def test_with_several_optimisers_it_says_why():
    given = bench(net(8, 4, 10), [held(X, Y)])
    with pytest.raises(CannotIsolate, match="several optimisers"):
        one_batch.measure(given)


def test_rates_are_those_of_each_group_also_where_they_are_tensors():
    a, b = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    groups = [{"params": [a], "lr": torch.tensor(0.1)}, {"params": [b], "lr": 0.2}]
    optimizer, record = torch.optim.SGD(groups), RunRecord()
    record.set_fact("optimizers", {"default": {}})
    record.append("lr", "default/0", [0, 9], [0.5, 0.1])
    rates = highest_rates(record, optimizer)
    assert rates == pytest.approx([0.5, 0.2])
    set_rates(optimizer, [0.25, 0.75])
    assert [float(g["lr"]) for g in optimizer.param_groups] == [0.25, 0.75]
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor)


def test_sparse_gradients_are_no_obstacle():
    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.last = torch.nn.Embedding(40, 16, sparse=True), torch.nn.Linear(16, 10)

        def forward(self, x):
            return self.last(self.table(x))

    model = Words()
    given = bench(model, [held(torch.arange(32), Y)], optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    one_batch.measure(given)
    before, own, reference, _ = row(given, "one_batch_fit", "train")
    assert max(own, reference) < before
