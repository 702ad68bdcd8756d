import math

import pytest
import torch

from benches import bench, blobs, in_batches, net, row
from trainwatch.probes import without_regulariser
from trainwatch.probes.isolation import CannotIsolate

X, Y, XV, YV = blobs()
DROPOUT = {"dropout": [{"name": "2", "p": 0.9}], "weight_decay": 0.0}
NAMES = ("before", "control", "without", "control_error", "before_error")


def compared(model, optimizer, regularisation, val=None, key=None):
    given = bench(model, in_batches(X, Y), in_batches(XV, YV) if val is None else val, optimizer,
                  regularisation=regularisation)  # fmt: skip
    without_regulariser.measure(given)
    keys = given.record.keys("without_regulariser")
    if not keys:
        return None
    assert key is None or key in keys
    values = row(given, "without_regulariser", key or keys[0])
    return dict(zip(NAMES, values[:5], strict=True)), dict(zip(NAMES, values[5:], strict=True)), keys


def test_strong_dropout_is_better_left_out():
    model = net(6, 32, 32, 3, dropout=0.9)
    train, val, keys = compared(model, torch.optim.Adam(model.parameters(), lr=3e-3), DROPOUT)
    assert keys == ["dropout"]
    for part in (train, val):
        assert part["without"] < part["control"] - 5 * part["control_error"]
        assert part["control_error"] > 0
        assert part["before_error"] > 0


def test_strong_decay_is_better_left_out():
    model = net(6, 32, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=0.5)
    train, val, keys = compared(model, optimizer, {"dropout": [], "weight_decay": 0.5})
    assert keys == ["weight_decay"]
    for part in (train, val):
        assert part["without"] < part["control"] - 5 * part["control_error"]


def test_each_is_left_out_alone_and_both_together():
    model = net(6, 32, 32, 3, dropout=0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=0.5)
    both = {**DROPOUT, "weight_decay": 0.5}
    alone, _, keys = compared(model, optimizer, both, key="dropout")
    together, _, _ = compared(model, optimizer, both, key="dropout+weight_decay")
    assert keys == ["dropout+weight_decay", "dropout", "weight_decay"]
    assert together["without"] < 0.5 * alone["without"]
    assert together["control"] == alone["control"]


def test_what_does_nothing_makes_no_difference():
    """Dropout is in the inventory and not in the net: both copies draw and learn the same."""
    model = net(6, 32, 3)
    train, val, _ = compared(model, torch.optim.SGD(model.parameters(), lr=0.1), DROPOUT)
    for part in (train, val):
        assert part["without"] == part["control"] < part["before"]
        assert part["control_error"] == 0.0
        assert part["before_error"] > 0.0


def test_neither_is_left_out_alone_where_both_together_are_in_nobodys_way():
    model = net(6, 32, 3)
    _, _, keys = compared(model, torch.optim.SGD(model.parameters(), lr=0.0), {**DROPOUT, "weight_decay": 0.1})
    assert keys == ["dropout+weight_decay"]


@pytest.mark.parametrize(("kind", "rate"), [("Adam", 0.01), ("SGD", 0.2), ("Adagrad", 0.1)])
def test_weights_that_decay_has_pulled_to_nothing_are_drawn_anew(kind, rate):
    """Left as they are they have no gradient, and the moments of Adam are those of nothing."""
    model = net(6, 32, 32, 3)
    began = [{"name": n, "kind": "bias" if "bias" in n else "weight", "norm": float(p.norm()),
              "std": float(p.std(unbiased=False))} for n, p in model.state_dict().items()]  # fmt: skip
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=rate, weight_decay=1.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-6)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(X), Y).backward()
        optimizer.step()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1e-3)
    given = bench(model, in_batches(X, Y), in_batches(XV, YV), optimizer, parameters=began,
                  regularisation={"dropout": [], "weight_decay": 1.0})  # fmt: skip
    without_regulariser.measure(given)
    before, control, without = row(given, "without_regulariser", "weight_decay")[5:8]
    assert without < 0.5 * min(before, control)


def test_gains_that_were_pulled_to_nothing_are_1_again():
    model = net(6, 8, 3, norm=True)
    gain = model[1].weight
    facts = [{"name": "1.weight", "kind": "norm", "norm": float(gain.detach().norm()), "std": 0.0}]
    with torch.no_grad():
        gain.mul_(1e-3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    without_regulariser._undecayed(bench(model, [], parameters=facts), model, optimizer)
    torch.testing.assert_close(gain.detach(), torch.ones(8))
    assert optimizer.param_groups[0]["weight_decay"] == 0.0


def test_weights_of_some_length_are_kept():
    model = net(6, 8, 3)
    began = [
        {"name": n, "kind": "weight", "norm": 3 * float(p.norm()), "std": 1.0} for n, p in model.state_dict().items()
    ]
    given = bench(model, in_batches(X, Y), parameters=began)
    before = [p.clone() for p in model.parameters()]
    without_regulariser._undecayed(given, model, torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_losses_are_those_in_evaluation_mode():
    """At a rate of 0 nothing changes, and dropout would show."""
    model = net(6, 32, 32, 3, dropout=0.9)
    for part in compared(model, torch.optim.SGD(model.parameters(), lr=0.0), DROPOUT)[:2]:
        assert part["before"] == part["control"] == part["without"]


def test_both_copies_draw_the_same_random_numbers():
    """Dropout that is not left out, since only decay is, drops the same units in both."""
    model = net(6, 32, 32, 3, dropout=0.5)
    only_decay = {"dropout": [], "weight_decay": 0.1}
    train, val, _ = compared(model, torch.optim.SGD(model.parameters(), lr=0.1), only_decay)
    assert train["without"] == train["control"] < train["before"]
    assert val["without"] == val["control"]


def test_without_validation_batches_that_part_is_absent():
    model = net(6, 32, 3, dropout=0.9)
    train, val, _ = compared(model, torch.optim.SGD(model.parameters(), lr=0.1), DROPOUT, val=[])
    assert all(math.isfinite(v) for v in train.values())
    assert all(math.isnan(v) for v in val.values())


def test_without_a_regulariser_nothing_is_trained():
    model = net(6, 32, 3)
    nothing = {"dropout": [], "weight_decay": 0.0}
    assert compared(model, torch.optim.SGD(model.parameters(), lr=0.1), nothing) is None


def test_the_rates_fall_from_the_highest_of_the_run_to_nothing(monkeypatch):
    seen = []
    model = net(6, 8, 3, dropout=0.5)
    given = bench(model, in_batches(X, Y), optimizer=torch.optim.SGD(model.parameters(), lr=1e-9),
                  regularisation=DROPOUT)  # fmt: skip
    given.record.append("lr", "default/0", [0, 50], [0.4, 1e-9])
    step = given.train_step
    monkeypatch.setattr(given, "train_step", lambda b, m, o: (seen.append(o.param_groups[0]["lr"]), step(b, m, o)))
    without_regulariser.measure(given)
    assert len(seen) == 2 * without_regulariser.ENOUGH
    assert seen[0] == pytest.approx(0.4)
    assert seen[without_regulariser.ENOUGH - 1] == pytest.approx(0.4 / without_regulariser.ENOUGH)
    assert seen[: without_regulariser.ENOUGH] == seen[without_regulariser.ENOUGH :]


def test_recurrent_dropout_is_left_out_too():
    lstm = torch.nn.LSTM(3, 4, num_layers=2, dropout=0.5)
    model = torch.nn.ModuleList([lstm, torch.nn.Dropout(0.3), torch.nn.MultiheadAttention(4, 2, dropout=0.2)])
    without_regulariser._undropped(model)
    assert (lstm.dropout, model[1].p, model[2].dropout) == (0.0, 0.0, 0.0)


def test_model_optimiser_and_random_numbers_are_left_alone():
    model = net(6, 32, 3, dropout=0.9, norm=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    compared(model, optimizer, {**DROPOUT, "weight_decay": 0.1})
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model[3].p == 0.9
    assert optimizer.param_groups[0] | {"params": 0} == optimizer.param_groups[0] | {
        "params": 0,
        "lr": 0.1,
        "weight_decay": 0.1,
    }
    assert torch.equal(state, torch.get_rng_state())


def test_without_batches_it_says_why():
    model = net(6, 32, 3)
    given = bench(model, [], optimizer=torch.optim.SGD(model.parameters(), lr=0.1), regularisation=DROPOUT)
    with pytest.raises(CannotIsolate, match="none was held"):
        without_regulariser.measure(given)


def test_moments_of_weights_that_are_drawn_anew_begin_anew_and_others_are_kept():
    model = net(6, 8, 3)
    facts = [{"name": "0.weight", "kind": "weight", "norm": 1e3, "std": 1.0}]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    torch.nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()
    without_regulariser._undecayed(bench(model, [], parameters=facts), model, optimizer)
    anew, kept = (optimizer.state[model[i].weight] for i in (0, 3))
    assert all(float(v.abs().sum()) == 0.0 for v in anew.values())
    assert all(float(v.abs().sum()) > 0.0 for v in kept.values())
