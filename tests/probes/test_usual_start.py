import pytest
import torch
from torch import nn

from benches import bench, blobs, in_batches, net, row
from trainwatch.probes import usual_start
from trainwatch.probes.isolation import CannotIsolate

X, Y, XV, YV = blobs()
NAMES = ("before", "as_begun", "other", "error", "before_error",
         "val_before", "val_as_begun", "val_other", "val_error", "val_before_error")  # fmt: skip


def squashed(depth, activation=nn.Sigmoid):
    """Layers of a squashing function each, and a last one."""
    hidden = [part for i in range(depth) for part in (nn.Linear(6 if i == 0 else 24, 24), activation())]
    return nn.Sequential(*hidden, nn.Linear(24, 3))


def facts_of(model):
    """What a run knows of its modules and of how its parameters began."""
    modules = [{"name": n, "type": type(m).__name__, "order": i} for i, (n, m) in enumerate(model.named_modules()) if n]
    parameters = [
        {"name": n, "module": n.rpartition(".")[0], "mean": float(p.detach().mean()),
         "std": float(p.detach().std()) if p.numel() > 1 else 0.0}
        for n, p in model.named_parameters()
    ]  # fmt: skip
    return {"modules": modules, "parameters": parameters}


def tried(model, step=100, lr=0.01, name="usual"):
    given = bench(model, in_batches(X, Y), in_batches(XV, YV), torch.optim.Adam(model.parameters(), lr), step=step,
                  **facts_of(model))  # fmt: skip
    usual_start.measure(given)
    return dict(zip(NAMES, row(given, "usual_start", name), strict=True)), given


def scaled(model, factor):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    return model


def test_weights_far_too_small_learn_less_than_usual_ones():
    torch.manual_seed(0)
    found, _ = tried(scaled(net(6, 24, 24, 24, 24, 3), 1e-3))
    for part in ("", "val_"):
        assert found[part + "other"] < found[part + "as_begun"] - 5 * found[part + "error"]
        assert found[part + "other"] < found[part + "before"] - 5 * found[part + "before_error"]


def test_usual_weights_are_no_better_than_such():
    torch.manual_seed(0)
    found, _ = tried(net(6, 24, 3), step=200)
    assert abs(found["val_other"] - found["val_as_begun"]) < 0.1


def test_rectified_units_learn_where_squashed_ones_do_not():
    torch.manual_seed(0)
    model = squashed(7)
    found, given = tried(model, name="rectified")
    assert found["val_other"] < 0.5 * found["val_as_begun"]
    usual = dict(zip(NAMES, row(given, "usual_start", "usual"), strict=True))
    assert usual["val_other"] > 0.8 * usual["val_as_begun"]
    assert [type(m) for m in model][1::2] == [nn.Sigmoid] * 7


def test_only_what_squashes_before_the_last_layer_is_replaced():
    _, given = tried(net(6, 24, 3))
    assert list(given.record.keys("usual_start")) == ["usual"]
    _, given = tried(nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3), nn.Tanh()))
    assert list(given.record.keys("usual_start")) == ["usual"]


def test_what_is_not_trained_stays_as_it_is():
    torch.manual_seed(0)
    model = squashed(2)
    optimizer = torch.optim.SGD(model[-1].parameters(), 0.1)
    weights = model[0].weight.clone()
    usual_start._draw(model, optimizer, "4", rectified=True)
    assert torch.equal(weights, model[0].weight)


def test_hidden_layers_are_drawn_as_he_and_glorot_do_and_the_last_as_torch_does():
    torch.manual_seed(0)
    model = net(200, 400, 300)
    for rectified, deviation in ((True, (2 / 200) ** 0.5), (False, (2 / 600) ** 0.5)):
        usual_start._draw(model, torch.optim.SGD(model.parameters(), 0.1), "3", rectified)
        assert float(model[0].weight.detach().std()) == pytest.approx(deviation, rel=0.03)
        assert not model[0].bias.any()
        assert float(model[-1].weight.detach().std()) == pytest.approx(1 / (3 * 400) ** 0.5, rel=0.03)


def test_weights_that_were_learned_elsewhere_are_not_drawn_anew():
    model = net(6, 16, 3)
    given = bench(model, in_batches(X, Y), in_batches(XV, YV), torch.optim.SGD(model.parameters(), 0.1))
    given.starts = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(CannotIsolate, match="learned elsewhere"):
        usual_start.measure(given)


def test_without_validation_it_is_refused():
    model = net(6, 16, 3)
    with pytest.raises(CannotIsolate, match="no validation"):
        usual_start.measure(bench(model, in_batches(X, Y), (), torch.optim.SGD(model.parameters(), 0.1)))


def test_the_run_is_as_it_was():
    model = squashed(2)
    weights = [p.clone() for p in model.parameters()]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    tried(model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
