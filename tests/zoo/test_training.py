"""What the loop does with rates of groups, an L1 term and limits on gradients."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.zoo import training
from benchmarks.zoo.data import load
from benchmarks.zoo.scenario import Data, Loop, Loss, Model, Optimizer, scenarios
from benchmarks.zoo.training import optimizer, penalised, run
from trainwatch.monitor import Monitor

SOUND = next(s for s in scenarios("tuning", "healthy_digits") if s.form == "base")
SHORT = replace(
    SOUND,
    data=Data(train=64, val=64),
    optimizer=Optimizer(name="SGD", lr=1.0),
    loop=Loop(epochs=1, batch=32, clip_value=1e-3),
)


def test_parameters_whose_names_begin_alike_get_a_rate_of_their_own():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    words = Optimizer(name="SGD", lr=0.5, rates={"0.": 0.1, "2.bias": 0.0})
    chosen, _ = optimizer(replace(SOUND, optimizer=words), model, 10)
    rates = {id(p): group["lr"] for group in chosen.param_groups for p in group["params"]}
    got = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert got == pytest.approx(
        {"0.weight": 0.05, "0.bias": 0.05, "1.weight": 0.5, "1.bias": 0.5, "2.weight": 0.5, "2.bias": 0.0}
    )


def test_the_l1_term_is_the_sum_of_absolute_weights():
    model, loss = nn.Linear(2, 1, bias=False), torch.tensor(1.0)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, -4.0]]))
    assert penalised(loss, Loss(l1=0.1), model).item() == pytest.approx(1.7)
    assert penalised(loss, Loss(), model) is loss  # the watch must see the criterion's own tensor


def test_classes_are_chosen_and_taken_modulo():
    some = load(Data(classes=(3, 5, 8)), 0)
    assert (some.outputs, sorted(set(some.y_train.tolist()))) == (3, [0, 1, 2])
    whole, odd = load(Data(), 0), load(Data(modulo=2), 0)
    assert odd.outputs == 2
    assert torch.equal(odd.y_train, whole.y_train % 2)
    assert torch.equal(odd.x_train, whole.x_train)


def test_a_body_is_pretrained_under_a_head_of_its_own():
    known = Model(hidden=(32,), norm="batch", pretrained=3, pretrained_on=tuple(range(10)), body_frozen=True)
    scenario = replace(SOUND, data=Data(modulo=2), model=known)
    torch.manual_seed(0)
    model = training.build(known, load(scenario.data, 0))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    training.pretrain_elsewhere(scenario, model, 0)
    changed = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"1", "2"}  # a linear layer and its norm; the head is that of the task again
    training.freeze_body(model)
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"4"}
    training.keep_frozen(model.train())
    assert [m.training for m in model] == [True, False, False, True, True]


@pytest.mark.parametrize("framework", ["pytorch", "lightning"])
def test_a_body_is_frozen_from_an_epoch_on(framework):
    threads = torch.get_num_threads()
    try:
        loop = Loop(epochs=4, batch=32, freeze_after=2, keep_zeros=True, validate=0, framework=framework)
        record = run(replace(SHORT, model=Model(hidden=(8,)), loop=loop), 0)
    finally:
        torch.set_num_threads(threads)
    (held,) = record.facts["frozen_held"].values()
    assert [(one["since"], one["gradient"]) for one in held] == [(4, True), (4, True)]  # two steps an epoch


@pytest.mark.parametrize("framework", ["pytorch", "lightning"])
def test_no_entry_moves_by_more_than_its_limit(framework, monkeypatch):
    seen, threads, built = [], torch.get_num_threads(), training.build

    def noted(*words):
        model = built(*words)
        seen.extend((model, nn.utils.parameters_to_vector(model.parameters()).detach().clone()))
        return model

    monkeypatch.setattr(training, "build", noted)
    try:
        run(replace(SHORT, loop=replace(SHORT.loop, framework=framework)), 0)
    finally:
        torch.set_num_threads(threads)
    model, before = seen
    moved = (nn.utils.parameters_to_vector(model.parameters()) - before).abs().max().item()
    assert 1e-3 < moved <= 2e-3 * (1 + 1e-3)  # two steps of rate 1


def batches(order, **loop):
    """Targets of the training batches of a scenario on one digit against all others."""
    scenario = replace(SOUND, data=Data(positive=3), loop=Loop(batch=50, order=order, **loop))
    train, _ = training.loaders(scenario, training.load(scenario.data, 0))
    return [y for _, y in train]


def test_the_order_of_the_samples():
    torch.manual_seed(0)
    plain, in_order = torch.cat(batches("shuffled")), torch.cat(batches("sorted"))
    assert torch.equal(in_order, plain.sort().values)
    blocks = batches("blocks", block=50)
    assert torch.equal(torch.cat(blocks).sort().values, in_order)
    assert sum(len(y.unique()) == 1 for y in blocks) >= len(blocks) - 2
    assert not torch.equal(torch.cat(blocks), in_order)
    assert torch.cat(batches("balanced")).float().mean() == pytest.approx(0.5, abs=0.05)
    assert plain.float().mean() == pytest.approx(0.1, abs=0.02)


def test_validation_samples_of_a_class_are_left_out():
    few, all_of_them = (training.load(Data(val_keep=kept), 0) for kept in ({"8": 0.25}, {}))
    assert torch.equal(few.x_train, all_of_them.x_train)
    counts, before = few.y_val.bincount(), all_of_them.y_val.bincount()
    assert counts[8] == round(0.25 * int(before[8]))
    assert torch.equal(counts[:8], before[:8])
    assert len(few.x_val) == len(few.y_val)


@pytest.mark.parametrize(("name", "logits"), [("bce_logits", [[2.0]]), ("cross_entropy", [[0.0, 2.0]])])
def test_positives_weigh_more(name, logits):
    sets = training.load(Data(positive=3), 0)
    shaped = replace(SOUND, loss=Loss(name=name, positive=5.0, reduction="sum"))
    target = torch.tensor([[1.0]]) if name == "bce_logits" else torch.tensor([1])
    weighted = training.criterion(shaped.loss, sets)(torch.tensor(logits), target)
    plain = training.criterion(Loss(name=name, reduction="sum"), sets)(torch.tensor(logits), target)
    assert weighted.item() == pytest.approx(5 * plain.item())


def test_metrics_are_reported_after_each_validation():
    threads = torch.get_num_threads()
    try:
        record = run(replace(SHORT, loop=Loop(epochs=2, metrics=("accuracy", "f1"))), 0)
    finally:
        torch.set_num_threads(threads)
    assert record.keys("metric") == ["accuracy", "f1"]
    assert len(record.series("metric", "accuracy").values) == 2
    right = record.series("val_confusion", "val").values[-1]
    assert record.series("metric", "accuracy").values[-1] == pytest.approx(right.trace() / right.sum())


def test_a_run_goes_by_the_processors_time_and_later_ones_by_their_own(monkeypatch):
    read = []
    monkeypatch.setattr(training.time, "process_time", lambda: read.append(None) or 1e-6 * len(read))
    run(SHORT, 0)
    assert len(read) > 4
    assert Monitor.__init__.__kwdefaults__["clock"] is training.time.perf_counter
