import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benches import bench, blobs, held, in_batches, net, row
from trainwatch.probes import reference
from trainwatch.probes.isolation import CannotIsolate
from trainwatch.probes.predictors import classifications, scaled

X, Y, XV, YV = blobs()


def measured(model, train, val):
    given = bench(model, train, val)
    reference.measure(given)
    return {name: row(given, "reference_loss", name) for name in given.record.keys("reference_loss")}


def test_classes_are_told_better_than_by_an_untrained_net():
    model = net(6, 8, 3)
    found = measured(model, in_batches(X, Y), in_batches(XV, YV))
    assert list(found) == ["neighbours", "boosting"]
    with torch.no_grad():
        net_loss = float(F.cross_entropy(model(XV), YV))
    for mine, other, error, guess, learned_from, scored in found.values():
        assert mine == pytest.approx(net_loss, rel=1e-5)
        assert other < 0.6 < guess
        assert guess == pytest.approx(np.log(3), abs=0.02)
        assert mine - other > 5 * error > 0
        assert (learned_from, scored) == (160, 160)


CRITERIA = {
    "nll_loss": (torch.nn.LogSoftmax(1), lambda y: y, 3),
    "binary_cross_entropy_with_logits": (torch.nn.Identity(), lambda y: (y == 1).float()[:, None], 1),
    "binary_cross_entropy": (torch.nn.Sigmoid(), lambda y: (y == 1).float()[:, None], 1),
    "mse_loss": (torch.nn.Identity(), lambda y: (y == 1).float()[:, None], 1),
    "smooth_l1_loss": (torch.nn.Identity(), lambda y: (y == 1).float(), 1),
}


@pytest.mark.parametrize("function", CRITERIA)
def test_it_is_scored_by_the_criterion_of_the_run(function):
    last, targets, width = CRITERIA[function]
    model = torch.nn.Sequential(torch.nn.Linear(6, width), last)
    with torch.no_grad():
        model[0].weight.zero_(), model[0].bias.zero_()
    train, val = in_batches(X, targets(Y), function=function), in_batches(XV, targets(YV), function=function)
    for mine, other, error, guess, _, _ in measured(model, train, val).values():
        assert other < 0.7 * guess
        assert guess < 1.01 * mine
        assert mine - other > 3 * error


def test_numbers_of_lower_precision_are_learned_from():
    y = (Y == 1).float()[:, None]
    model = torch.nn.Linear(6, 1)
    full = measured(model, in_batches(X, y, function="mse_loss"), in_batches(XV, y, function="mse_loss"))
    x, xv, half = X.bfloat16(), XV.bfloat16(), y.bfloat16()
    low = measured(
        model.bfloat16(), in_batches(x, half, function="mse_loss"), in_batches(xv, half, function="mse_loss")
    )
    for name, (_, other, *_) in low.items():
        assert other == pytest.approx(full[name][1], rel=0.1)


def test_further_arguments_of_the_criterion_count():
    plain = measured(net(6, 8, 3), in_batches(X, Y), in_batches(XV, YV))["neighbours"]
    smooth = [in_batches(*part, label_smoothing=0.5) for part in ((X, Y), (XV, YV))]
    assert measured(net(6, 8, 3), *smooth)["neighbours"][1] > plain[1] + 0.2


def test_a_net_that_knows_is_not_beaten():
    model = net(6, 64, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
    found = measured(model, in_batches(X, Y), in_batches(XV, YV))
    assert all(mine < other + 2 * error for mine, other, error, *_ in found.values())


def test_it_is_the_same_each_time_and_draws_no_random_number_of_the_run():
    given = net(6, 8, 3), in_batches(X, Y), in_batches(XV, YV)
    state, drawn = torch.get_rng_state(), np.random.get_state()[1].tolist()
    assert measured(*given) == measured(*given)
    assert torch.equal(state, torch.get_rng_state())
    assert drawn == np.random.get_state()[1].tolist()


def test_constant_features_and_missing_entries_are_no_obstacle():
    x, xv = X.clone(), XV.clone()
    x[:, 0] = xv[:, 0] = 1e6
    x[0, 1] = torch.nan
    found = measured(net(6, 8, 3), in_batches(x, Y), in_batches(torch.nan_to_num(xv), YV))
    assert all(np.isfinite(values).all() for values in found.values())


def test_of_many_features_a_projection_keeps_what_matters():
    wide = torch.cat([X, torch.zeros(160, 994)], 1), torch.cat([XV, torch.zeros(160, 994)], 1)
    (few, *_), projected = (scaled(a.numpy(), [b.numpy()]) for a, b in ((X, XV), wide))
    assert projected[0].shape == (160, 256)
    near = [np.linalg.norm(t[0][:1] - t[0][1:], axis=1) for t in ((few, None), projected)]
    assert np.corrcoef(*near)[0, 1] > 0.95


def test_classes_that_were_not_learned_have_a_chance_left():
    made = dict(classifications(X.numpy(), (Y % 2).numpy() * 2, [XV.numpy()], 4))
    for (probabilities,) in made.values():
        np.testing.assert_allclose(probabilities.sum(1), 1.0)
        assert probabilities.min() > 0
    assert list(made) == ["constant", "neighbours", "boosting"]


class Two(torch.nn.Linear):
    def forward(self, x, z=None):
        return super().forward(x)


ENOUGH = torch.arange(40) % 3
REFUSED = {
    "few samples": ([held(X[:20], Y[:20])], "fewer than 30 samples"),
    "other losses": ([held(X, Y.float()[:, None].expand(-1, 3), "l1_loss")], "one class or number"),
    "unknown loss": ([held(X, Y, "multi_margin_loss")], "not scored by multi_margin_loss"),
    "tokens": ([held(torch.zeros(40, 4, dtype=torch.long), ENOUGH)], "not one tensor of numbers"),
    "huge": ([held(torch.zeros(40, 5000), ENOUGH)], "more than 4096 features"),
    "one class": ([held(X, torch.zeros(160, dtype=torch.long))], "need 2 to 64 classes"),
    "ignored": ([held(X, torch.where(torch.arange(160) > 9, Y, -100))], "each sample of one of them"),
}


@pytest.mark.parametrize(("train", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_it_cannot_be_compared_on_is_left_alone(train, reason):
    model = torch.nn.Sequential(torch.nn.Linear(train[0].args[0].shape[1], 3))
    with pytest.raises(CannotIsolate, match=reason):
        measured(model, train, train if "tokens" in reason or "features" in reason else in_batches(XV, YV))


def test_more_classes_than_that_are_left_alone():
    model = net(6, 8, 70)
    with pytest.raises(CannotIsolate, match="need 2 to 64 classes"):
        measured(model, in_batches(X, Y), in_batches(XV, YV))


def test_without_validation_batches_it_says_why():
    with pytest.raises(CannotIsolate, match="none was held"):
        measured(net(6, 8, 3), in_batches(X, Y), [])
