import copy

import numpy as np
import pytest
import torch
from torch import nn
from wired import SETTINGS, codes, data, net, train

import trainwatch
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw705_parameters_left_out import ParametersLeftOut
from trainwatch.symptoms.cut_off import without_gradient


def adam(parameters):
    return torch.optim.Adam(list(parameters), lr=1e-2)


def only(report):
    return next(d for d in report.diagnoses if d.code == "TW705")


INITS = {
    "default": lambda w: None,
    "kaiming": nn.init.kaiming_normal_,
    "xavier": nn.init.xavier_uniform_,
    "orthogonal": nn.init.orthogonal_,
}


def initialised(init, seed):
    torch.manual_seed(seed)
    model = net()
    for layer in (model[0], model[3]):
        INITS[init](layer.weight)
    return model


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("init", INITS)
def test_fires_on_an_untrained_body_that_is_not_optimised(init, seed):
    model = initialised(init, seed)
    found = only(train(model, adam(model[6].parameters()), seed=seed)[0])
    assert (found.severity, found.where) == (Severity.WARNING, ("0", "3"))
    assert "in no optimiser" in found.summary
    assert "add_param_group" in found.remedies[0].how


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("init", INITS)
def test_fires_on_a_frozen_untrained_body(init, seed):
    model = initialised(init, seed)
    model[:4].requires_grad_(False)
    found = only(train(model, adam(model[6].parameters()), seed=seed)[0])
    assert (found.severity, found.where) == (Severity.WARNING, ("0", "3"))
    assert found.remedies[0].id == "unfreeze-layers"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("frozen", [True, False])
def test_a_trained_body_is_left_out_on_purpose(frozen, seed):
    model = initialised("default", seed)
    train(model, adam(model.parameters()), steps=150, seed=seed)
    model[6].reset_parameters()
    model[:4].requires_grad_(not frozen)
    report, _ = train(model, adam(model[6].parameters()), seed=seed)
    found = [d for d in report.diagnoses if d.code == "TW705"]
    assert [d.severity for d in found] == ([] if frozen else [Severity.INFO])


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm, lambda n: nn.BatchNorm1d(n, affine=False)],
                         ids=["batch", "layer", "batch without gains"])  # fmt: skip
def test_a_body_that_was_trained_briefly_shows_it_in_its_normalisation(norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), norm(32), nn.ReLU(), nn.Linear(32, 2))
    trained = copy.deepcopy(model)
    train(trained, torch.optim.Adam(trained.parameters(), 1e-3), steps=10)
    for body, told in ((model, ["0"]), (trained, [])):
        body[0].requires_grad_(False)
        report, _ = train(body, adam(body[3].parameters()))
        found = [d for d in report.diagnoses if d.code == "TW705" and d.severity > Severity.INFO]
        assert [place for d in found for place in d.where] == told


@pytest.mark.parametrize("seed", range(3))
def test_a_layer_that_its_training_hardly_touched_belongs_to_the_body_behind_it(seed):
    """A second layer that shows training tells that the first was trained with it; a last one may be a new head."""
    model = initialised("default", seed)
    with torch.no_grad():
        model[3].weight.add_(
            0.3 * torch.outer(torch.randn(len(model[3].weight)), torch.randn(model[3].weight.shape[1]))
        )
    model[:4].requires_grad_(False)
    assert "TW705" not in codes(train(model, adam(model[6].parameters()), seed=seed)[0])
    model = initialised("default", seed)
    with torch.no_grad():
        model[0].weight.add_(
            0.3 * torch.outer(torch.randn(len(model[0].weight)), torch.randn(model[0].weight.shape[1]))
        )
    model[:4].requires_grad_(False)
    assert only(train(model, adam(model[6].parameters()), seed=seed)[0]).where == ("3",)


def test_stays_silent_where_all_is_trained():
    model = net()
    report, record = train(model, adam(model.parameters()))
    assert codes(report) == []
    assert "left_out" not in record.facts


def test_a_head_replaced_after_the_optimiser_was_built():
    model = net()
    optimizer = adam(model.parameters())
    model[6] = nn.Linear(32, 2)
    found = only(train(model, optimizer)[0])
    assert (found.severity, found.where) == (Severity.ERROR, ("6",))
    assert "not the model's" in found.summary


def test_parameters_of_a_loss_are_the_optimisers_business():
    model, scale = net(), nn.Parameter(torch.ones(()))
    optimizer, (x, y) = adam([*model.parameters(), scale]), data()
    with trainwatch.watch(model, optimizer, settings=SETTINGS) as watch:
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x) * scale, y).backward()
            optimizer.step()
    assert codes(watch.report) == []


class Listed(nn.Module):
    def __init__(self, kind):
        super().__init__()
        layers = [nn.Linear(20, 32), nn.Linear(32, 32)]
        self.layers = kind(layers)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        for layer in self.layers.values() if isinstance(self.layers, dict) else self.layers:
            x = torch.relu(layer(x))
        return self.head(x)


@pytest.mark.parametrize("kind", [list, tuple, lambda layers: dict(enumerate(layers))])
def test_layers_in_a_plain_container(kind):
    model = Listed(kind)
    found = only(train(model, adam(model.parameters()))[0])
    assert (found.severity, found.where) == (Severity.ERROR, ("layers[0]", "layers[1]"))
    assert "ModuleList" in found.remedies[0].how


def test_a_plain_container_of_registered_or_optimised_layers_is_fine():
    model = Listed(nn.ModuleList)
    model.order = list(model.layers)
    assert codes(train(model, adam(model.parameters()))[0]) == []
    model = Listed(list)
    everything = [*model.parameters(), *(p for layer in model.layers for p in layer.parameters())]
    assert codes(train(model, adam(everything))[0]) == []


def test_weights_that_follow_another_network_are_no_fault():
    model = nn.Sequential(net())
    model.target = copy.deepcopy(model[0]).requires_grad_(False)
    model.forward = lambda x: model[0](x) + 0 * model.target(x)
    optimizer, (x, y) = adam(model[0].parameters()), data()
    with trainwatch.watch(model, optimizer, settings=SETTINGS) as watch:
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            for mean, own in zip(model.target.parameters(), model[0].parameters(), strict=True):
                mean.data = 0.9 * mean.data + 0.1 * own.data
    assert codes(watch.report) == []


def test_another_optimiser_that_is_not_watched_counts():
    model = net()
    head, body = adam(model[6].parameters()), adam(model[:6].parameters())
    (x, y), criterion = data(), nn.CrossEntropyLoss()
    with trainwatch.watch(model, head, loss_fn=criterion, settings=SETTINGS) as watch:
        for _ in range(20):
            model.zero_grad()
            criterion(model(x), y).backward()
            head.step()
            body.step()
    assert not [d for d in watch.report.diagnoses if d.code == "TW705" and d.severity > Severity.INFO]


def test_the_first_steps_tell_nothing():
    record = RunRecord()
    record.set_fact("parameters", [])
    one = {"name": "0.weight", "numel": 9, "frozen": True, "used": True, "fresh": True, "moved": False}
    record.set_fact("left_out", {"parameters": [one], "unregistered": [], "foreign": {}})
    for steps in (7, 8):
        record.append("train_loss", "root", range(record.steps, steps), [1.0] * (steps - record.steps))
        assert len(list(ParametersLeftOut().check(record))) == (steps == 8)


def one(name="0.weight", **changes):
    return {"name": name, "numel": 9, "frozen": False, "used": True, "fresh": True, "moved": False, **changes}


def left_out(*parameters, unregistered=(), foreign=None, optimizers=None):
    """Severity, place, remedy and share in per cent of what is found; the optimiser holds as many numbers, too."""
    record = RunRecord()
    record.set_fact("parameters", [*parameters, {"name": "held", "numel": 9 * max(1, len(parameters))}])
    record.set_fact("optimizers", optimizers or {})
    record.append("train_loss", "root", range(20), [1.0] * 20)
    facts = {"parameters": list(parameters), "unregistered": list(unregistered), "foreign": foreign or {}}
    record.set_fact("left_out", facts)
    found = ParametersLeftOut().check(record)
    return [(d.severity, d.where, d.remedies[0].id, round(d.evidence[0].value, 1)) for d in found]


OPTIMISE, UNFREEZE, REGISTER = "optimise-all-parameters", "unfreeze-layers", "register-layers"


def test_what_is_left_out_is_told_by_how_it_is_left_out():
    assert left_out(one()) == [(Severity.WARNING, ("0",), OPTIMISE, 50.0)]
    assert left_out(one("scale")) == [(Severity.WARNING, ("scale",), OPTIMISE, 50.0)]
    assert left_out(one(fresh=False)) == [(Severity.INFO, ("0",), OPTIMISE, 50.0)]
    assert left_out(one(frozen=True)) == [(Severity.WARNING, ("0",), UNFREEZE, 50.0)]
    assert left_out(one(moved=True)) == left_out(one(used=False)) == left_out(one(frozen=True, fresh=False)) == []
    hidden = left_out(unregistered=[one("layers[0].weight"), one("layers[1].weight", used=False)])
    assert hidden == [(Severity.ERROR, ("layers[0]",), REGISTER, 50.0)]


def test_parameters_that_begin_at_no_random_value_count_with_those_of_their_module():
    bias = one("0.bias", fresh=False)
    assert left_out(one(), bias, one("1.weight", fresh=False)) == [(Severity.WARNING, ("0",), OPTIMISE, 33.3)]


def test_an_optimiser_that_holds_what_is_not_the_models_makes_it_an_error():
    for with_gradient, severity in ((False, Severity.ERROR), (True, Severity.WARNING)):
        assert left_out(one(), foreign={"default": {"with_gradient": with_gradient}})[0][0] == severity


def test_an_optimiser_without_groups_has_no_rate_to_tell():
    optimizers = {"a": {"type": "SGD", "groups": []}, "b": {"type": "Adam", "groups": [{"lr": 0.1}]}}
    assert len(left_out(one(), optimizers=optimizers)) == 1


def test_abstains_where_parameters_are_unknown():
    with pytest.raises(NotChecked):
        list(ParametersLeftOut().check(RunRecord()))
    assert left_out() == []
    record = RunRecord()
    record.set_fact("parameters", [])
    record.append("train_loss", "root", range(20), [1.0] * 20)
    assert list(ParametersLeftOut().check(record)) == []


class CutNet(nn.Module):
    """A net whose body is cut off from the loss, in one of the ways that it happens."""

    def __init__(self, how):
        super().__init__()
        self.body, self.spare, self.head, self.how = nn.Linear(20, 32), nn.Linear(32, 32), nn.Linear(32, 2), how

    def forward(self, x):
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.how != "no_grad"):
            h = self.body(x).relu()
        self.spare(h)
        return self.head(h.detach() if self.how == "detach" else h)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("how", ["detach", "no_grad"])
def test_fires_on_a_body_that_no_gradient_reaches(how, seed):
    torch.manual_seed(seed)
    model = CutNet(how)
    found = only(train(model, adam(model.parameters()), seed=seed)[0])
    assert (found.severity, found.where) == (Severity.ERROR, ("body",))
    assert "no gradient ever reached it" in found.summary
    assert found.remedies[0].id == "let-gradients-through"


def test_a_layer_whose_output_is_not_used_is_no_fault():
    torch.manual_seed(0)
    model = CutNet("not at all")
    report, _ = train(model, adam(model.parameters()))
    assert "TW705" not in {d.code for d in report.diagnoses}


def test_gradients_that_are_sparse_are_no_absent_ones():
    torch.manual_seed(0)
    x, y = torch.randint(0, 30, (300, 6)), torch.randint(0, 3, (300,))
    model = nn.Sequential(nn.EmbeddingBag(30, 8, sparse=True), nn.Linear(8, 3))
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss()
    with trainwatch.watch(model, optimizer, loss_fn=loss_fn, settings=trainwatch.Settings(quiet=True)) as watch:
        for rows in torch.randperm(300).split(10):
            optimizer.zero_grad()
            loss_fn(model(x[rows]), y[rows]).backward()
            optimizer.step()
    assert without_gradient(watch.record) == ("0.weight",), "the probe has to tell"
    assert "TW705" not in {d.code for d in watch.report.diagnoses}


def test_where_the_net_was_trained_before_it_is_a_remark():
    torch.manual_seed(0)
    model = CutNet("detach")
    _, made = train(model, adam(model.parameters()))
    made.set_fact("start_weights", {**made.facts["start_weights"], "trained": 1})
    assert [d.severity for d in ParametersLeftOut().check(made)] == [Severity.INFO]


def cut(*, steps=20, gradient=np.nan, change=0.01, trained=None):
    """A run of two layers, of which the first has no gradient; a probe changed it."""
    record = RunRecord()
    layers = [{"name": f"{name}.weight", "numel": 9, "trainable": True, "shape": [3, 3]} for name in ("body", "head")]
    record.set_fact("parameters", layers)
    record.set_fact("optimizers", {"default": {"type": "Adam", "parameters": [0, 1], "groups": [{"lr": 1e-3}]}})
    record.append("train_loss", "root", range(steps), [1.0] * steps)
    record.append("grad_norm", "default", range(steps), [[gradient, 1.0]] * steps)
    if change is not None:
        record.append("cut_off", "body", steps, [change, 9.0])
    if trained is not None:
        record.set_fact("start_weights", {"judged": 2, "trained": trained})
    return record


@pytest.mark.parametrize(("how", "asks"), [({}, True), ({"steps": 7}, False), ({"gradient": 0.0}, False)])
def test_it_asks_where_a_layer_has_no_gradient(how, asks):
    assert [request.kind for request in ParametersLeftOut().asks(cut(change=None, **how))] == ["cut_off"] * asks


@pytest.mark.parametrize(
    ("how", "severities"),
    [
        ({"change": 1.05e-3}, [Severity.ERROR]),
        ({"change": 0.95e-3}, []),
        ({"change": None}, []),
        ({"gradient": 0.0}, []),
        ({"steps": 7}, []),
        ({"trained": 0}, [Severity.ERROR]),
        ({"trained": 1}, [Severity.INFO]),
    ],
)
def test_a_layer_is_cut_off_where_the_loss_depends_on_it(how, severities):
    found = list(ParametersLeftOut().check(cut(**how)))
    assert [d.severity for d in found] == severities
    assert all((d.where, d.evidence[0].value) == (("body",), 50.0) for d in found)


STEPPED = {
    "one-never": (("head",), ("body.0",)),
    "both": (("body", "head"), None),
    "in turn": (("body", "head", "body"), None),
}


@pytest.mark.parametrize(("stepping", "where"), STEPPED.values(), ids=STEPPED)
def test_an_optimiser_that_never_steps(stepping, where):
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(8, 16), nn.ReLU()), "head": nn.Linear(16, 3)})
    optimizers = {part: torch.optim.SGD(model[part].parameters(), lr=0.05) for part in ("body", "head")}
    watch = trainwatch.watch(model, optimizers, settings={"quiet": True, "strict": True, "probes": "off"})
    for _ in range(30):
        model.zero_grad()
        loss = nn.functional.cross_entropy(model["head"](model["body"](torch.randn(8, 8))), torch.arange(8) % 3)
        loss.backward()
        for part in stepping:
            optimizers[part].step()
    found = [d for d in watch.finish().diagnoses if d.code == "TW705"]
    assert [d.where for d in found] == ([where] if where else [])
    if where:
        assert found[0].severity == Severity.ERROR
        assert "held by the optimizer 'body', which never took a step" in found[0].summary
        assert found[0].remedies[0].how.endswith("body.step()\nbody.zero_grad()")


def test_an_optimiser_that_never_steps_is_told_at_the_end_and_of_what_it_alone_holds():
    def made(finished=True, other=(1,), trainable=True):
        record = RunRecord()
        record.append("train_loss", "root", range(20), [1.0] * 20)
        parameters = [{"name": f"{i}.weight", "numel": 4, "trainable": trainable} for i in range(2)]
        record.set_fact("parameters", parameters)
        groups = [{"lr": 0.1}]
        held = {"a": [0], "b": list(other)}
        record.set_fact("optimizers", {k: {"type": "SGD", "parameters": v, "groups": groups} for k, v in held.items()})
        record.set_fact("run", {"steps": 20, "finished": finished, "steps_of": {"a": 0, "b": 20}})
        return [d.where for d in ParametersLeftOut().check(record)]

    assert made() == [("0",)]
    assert made(finished=False) == []
    assert made(other=(0, 1)) == []
    assert made(trainable=False) == []
