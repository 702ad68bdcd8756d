import math

import pytest
import torch

import trainwatch
from benches import bench, blobs, in_batches, net, row
from trainwatch.capture.wiring import parameter_facts
from trainwatch.probes import without_regulariser
from trainwatch.probes.begun_again import begin_again
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


def test_proximal_steps_that_pull_hard_are_better_left_out():
    model = net(6, 32, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainwatch.prox(optimizer, l1=0.2)
    train, val, keys = compared(model, optimizer, {"dropout": [], "weight_decay": 0.0})
    assert keys == ["proximal"]
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


def test_nor_where_only_training_is_better_without():
    """What is learned makes the guess of validation labels worse."""
    model = net(6, 32, 32, 3, dropout=0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=0.1)
    other = in_batches(XV, (YV + 1) % 3)
    train, val, keys = compared(model, optimizer, {**DROPOUT, "weight_decay": 0.1}, val=other)
    assert train["without"] < train["control"]
    assert val["without"] > val["control"]
    assert keys == ["dropout+weight_decay"]


def begun(model):
    """The facts of the weights of a net as a run records them at its start."""
    return parameter_facts({"default": model})


@pytest.mark.parametrize(
    ("kind", "rate"), [("Adam", 0.01), ("NAdam", 0.01), ("SGD", 0.2), ("Adagrad", 0.1), ("ASGD", 0.2)]
)
def test_weights_that_were_pulled_to_nothing_are_drawn_anew(kind, rate):
    """Left as they are they have no gradient, and the moments of Adam are those of nothing."""
    model = net(6, 32, 32, 3)
    began = begun(model)
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=rate, weight_decay=1.0)
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


def test_a_term_in_the_loss_that_pulled_the_weights_to_nothing_is_in_none_of_the_copies():
    model = net(6, 32, 32, 3)
    began = begun(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = bench(model, in_batches(X, Y), in_batches(XV, YV), optimizer, parameters=began)
    without_regulariser.measure(given)
    before, control, without = row(given, "further_steps", "held")[5:8]
    assert before == control
    assert without < 0.5 * before


def strongly(model, kind="l1", coefficient=0.05):
    return {
        "dropout": [],
        "weight_decay": 0.0,
        "penalties": {kind: {n: coefficient for n, _ in model.named_parameters()}},
    }


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_a_term_that_is_known_is_in_the_copy_that_learns_as_the_run_does(kind):
    model = net(6, 32, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train, val, keys = compared(model, optimizer, strongly(model, kind))
    assert keys == ["penalty"]
    for part in (train, val):
        assert part["without"] < part["control"] - 5 * part["control_error"]
        assert part["control"] < part["before"] or part["control"] > 0.9


def test_nothing_else_stands_in_for_a_term_that_is_known():
    model = net(6, 32, 3)
    given = bench(model, in_batches(X, Y), in_batches(XV, YV), torch.optim.SGD(model.parameters(), lr=0.1),
                  regularisation=strongly(model))  # fmt: skip
    without_regulariser.measure(given)
    assert not given.record.has("further_steps")


def test_a_weak_term_makes_hardly_a_difference():
    model = net(6, 32, 3)
    train, val, _ = compared(model, torch.optim.SGD(model.parameters(), lr=0.1), strongly(model, "l1", 1e-7))
    for part in (train, val):
        assert part["without"] == pytest.approx(part["control"], rel=1e-2)
        assert part["without"] < part["before"]


class Multiple:
    """A trainer's own step, which returns ten times the criterion."""

    complete, samples = True, 32

    def __init__(self, batch):
        self.batch = batch

    def loss(self, model):
        return 10 * self.batch.loss(model)

    def losses(self, model):
        return 10 * self.batch.losses(model)


def test_losses_are_those_of_the_criterion_where_a_step_returns_a_multiple():
    def row_of(batches):
        torch.manual_seed(0)
        model = net(6, 32, 3)
        given = bench(model, batches, in_batches(XV, YV), torch.optim.SGD(model.parameters(), lr=0.01))
        given.record.append("loss_factor", "cross_entropy", 0, 10.0)
        without_regulariser.measure(given)
        return row(given, "further_steps", "held")

    assert row_of([Multiple(b) for b in in_batches(X, Y)]) == pytest.approx(row_of(in_batches(X, Y)), rel=1e-3)


def test_dropout_and_a_term_are_left_out_together_and_alone():
    model = net(6, 32, 32, 3, dropout=0.9)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    _, _, keys = compared(model, optimizer, {**strongly(model), **DROPOUT})
    assert keys == ["dropout+penalty", "dropout", "penalty"]


def begun_again(model, optimizer):
    """What a copy begins with, of a net whose start is on record and that was changed since."""
    given = bench(model, [], parameters=begun(model))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-3)
    begin_again(given, model, optimizer)


def test_weights_are_drawn_as_wide_as_they_began_and_gains_are_1_again():
    model = net(40, 50, 3, norm=True)
    torch.nn.init.constant_(model[-1].bias, -4.0)
    width = float(model[0].weight.detach().std())
    model.train()
    model(torch.randn(32, 40))
    begun_again(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert float(model[0].weight.detach().std()) == pytest.approx(width, rel=0.1)
    torch.testing.assert_close(model[1].weight.detach(), torch.ones(50))
    torch.testing.assert_close(model[-1].bias.detach(), torch.full((3,), -4.0))
    assert float(model[1].running_mean.abs().max()) == 0.0


def test_what_is_frozen_stays():
    model = net(6, 8, 3)
    model[0].weight.requires_grad_(False)
    was = model[0].weight.clone()
    begun_again(model, torch.optim.SGD(model.parameters(), lr=0.1))
    torch.testing.assert_close(model[0].weight, 1e-3 * was)
    other = net(6, 8, 3)
    was = other[0].weight.detach().clone()
    begun_again(other, torch.optim.SGD(other[3].parameters(), lr=0.1))
    torch.testing.assert_close(other[0].weight.detach(), 1e-3 * was)


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


def rates_of(monkeypatch, given):
    """The rate of each step that the probe takes."""
    seen, step = [], given.train_step
    monkeypatch.setattr(given, "train_step", lambda b, m, o: (seen.append(o.param_groups[0]["lr"]), step(b, m, o)))
    without_regulariser.measure(given)
    return seen


def given_of(steps=100, regularisation=DROPOUT, rate=1e-9):
    model = net(6, 8, 3, dropout=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, weight_decay=0.1)
    return bench(model, in_batches(X, Y), in_batches(XV, YV), optimizer, step=steps, regularisation=regularisation)


def test_the_rates_rise_to_the_highest_of_the_run_and_fall_to_nothing(monkeypatch):
    given, most = given_of(), without_regulariser.FEWEST
    given.record.append("lr", "default/0", [0, 50], [0.4, 1e-9])
    seen = rates_of(monkeypatch, given)
    assert seen[0] == pytest.approx(0.4 / (0.1 * most))
    assert max(seen) == pytest.approx(0.4, rel=0.11)
    assert seen[most - 1] == pytest.approx(0.4 / most)
    assert seen[:most] == seen[most:]


@pytest.mark.parametrize(
    ("steps", "affords", "taken"),
    [(40, math.inf, 150), (230, math.inf, 230), (5000, math.inf, 400), (5000, 660, 300), (5000, 100, 150)],
)
def test_copies_take_as_many_steps_as_the_run_within_bounds_and_time(steps, affords, taken, monkeypatch):
    given = given_of(steps)
    given.affords = affords
    assert len(rates_of(monkeypatch, given)) == 2 * taken


@pytest.mark.parametrize(("affords", "copies"), [(660, 2), (1259, 3), (1260, 4)])
def test_each_alone_is_left_out_where_there_is_time(affords, copies, monkeypatch):
    given = given_of(300, {**DROPOUT, "weight_decay": 0.1}, rate=0.1)
    given.affords = affords
    assert len(rates_of(monkeypatch, given)) == copies * 300


def test_the_look_with_the_lowest_validation_loss_counts():
    """A few wrong labels are learned by heart in the end."""
    model = net(6, 256, 256, 3)
    wrong = torch.randint(0, 3, (64,), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def lowest(val):
        given = bench(model, in_batches(X[:64], wrong), val, optimizer, parameters=begun(model), step=400)
        without_regulariser.measure(given)
        return row(given, "further_steps", "held")

    seen, blind = lowest(in_batches(XV, YV)), lowest([])
    assert blind[2] < 0.1
    assert seen[2] > 2 * blind[2], "an earlier look was better in validation"


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


@pytest.mark.parametrize("kind", ["Adam", "Adagrad"])
def test_what_the_optimiser_remembers_is_forgotten(kind):
    model = net(6, 8, 3)
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.01, weight_decay=0.1)
    torch.nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()
    begun_again(model, optimizer)
    assert all(float(v.abs().sum()) == 0.0 for state in optimizer.state.values() for v in state.values())
