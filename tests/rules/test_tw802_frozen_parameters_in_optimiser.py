import numpy as np
import pytest
import torch
from torch import nn
from wired import data

import trainwatch
from trainwatch.config import Settings
from trainwatch.diagnosis import Severity
from trainwatch.record import RunRecord
from trainwatch.rules import NotChecked
from trainwatch.rules.tw802_frozen_parameters_in_optimiser import FrozenParametersInOptimiser

SEEDS = range(3)
SETTINGS = Settings(quiet=True, strict=True, probes="off", select=("TW802",))
OPTIMIZERS = {
    "plain": lambda p: torch.optim.SGD(p, lr=0.05),
    "decay": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.95),
    "adam": lambda p: torch.optim.Adam(p, lr=3e-3),
}
BODY = ("0.weight", "0.bias")


def body_and_head(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))


def train(model, optimizer, *, at=20, to_none=False, zero=True, thaw=None, steps=80, then=lambda: None, load=(-1, {})):
    """Freeze the body after so many steps; give back the diagnosis, if any, and how far the body went from there."""
    (x, y), criterion = data(), nn.CrossEntropyLoss()
    began = start = model[0].weight.detach().clone()
    with trainwatch.watch(model, optimizer, loss_fn=criterion, settings=SETTINGS) as watch:
        for step in range(steps):
            if step == at:
                model[0].requires_grad_(False)
                start = model[0].weight.detach().clone()
                then()
            if step == thaw:
                model[0].requires_grad_(True)
            if step == load[0]:
                model.load_state_dict(load[1])
            if zero:
                optimizer.zero_grad(set_to_none=to_none)
            else:
                model[2].zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
    found = [d for cause in watch.report.diagnoses for d in cause.walk() if d.code == "TW802"]
    return found, float((model[0].weight.detach() - start).norm() / began.norm())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["decay", "momentum", "adam"])
def test_fires_where_the_optimiser_goes_on_moving_what_was_frozen(name, seed):
    model = body_and_head(seed)
    (found,), moved = train(model, OPTIMIZERS[name](model.parameters()))
    assert moved > 0.01
    assert found.severity == Severity.WARNING
    assert set(found.where) <= set(BODY)
    assert found.onset_step == 20
    weight = next(e for e in found.evidence if e.where == "0.weight")
    assert weight.value > 0.01 == weight.threshold
    assert 0.5 * moved < weight.value < 1.1 * moved  # noticed behind the first step
    assert "gradient of zero is still there" in weight.note


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_torch_leaves_alone_is_a_remark(name, seed):
    """From the start, or with gradients set to None: as torch does by default."""
    for at, to_none in ((0, False), (20, True)):
        model = body_and_head(seed)
        (found,), moved = train(model, OPTIMIZERS[name](model.parameters()), at=at, to_none=to_none)
        assert moved == 0
        assert (found.severity, found.where, found.onset_step) == (Severity.INFO, BODY, at)
        assert found.evidence[-1].value == 20 * 32 + 32


@pytest.mark.parametrize("seed", SEEDS)
def test_a_gradient_of_zero_moves_nothing_by_plain_steps(seed):
    model = body_and_head(seed)
    (found,), moved = train(model, OPTIMIZERS["plain"](model.parameters()))
    assert moved == 0
    assert found.severity == Severity.INFO


@pytest.mark.parametrize("seed", SEEDS)
def test_a_gradient_that_nobody_zeroes_is_applied_each_time(seed):
    model = body_and_head(seed)
    (found,), moved = train(model, OPTIMIZERS["plain"](model.parameters()), zero=False)
    assert moved > 0.01
    assert found.severity == Severity.WARNING
    assert "the last gradient is still there" in found.summary


@pytest.mark.parametrize("seed", SEEDS)
def test_the_remedy_can_be_pasted_and_ends_it(seed):
    model = body_and_head(seed)
    (found,), _ = train(model, OPTIMIZERS["adam"](model.parameters()))
    again = body_and_head(seed)
    code = {"torch": torch, "model": again}
    said, moved = train(again, OPTIMIZERS["adam"](again.parameters()), then=lambda: exec(found.remedies[0].how, code))
    assert moved == 0
    assert [d.severity for d in said] == [Severity.INFO]
    assert [len(g["params"]) for g in code["optimizer"].param_groups] == [2]


def test_many_parameters_are_told_by_what_they_share():
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(10)), nn.Linear(4, 2)).requires_grad_(False)
    model[-1].requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trainwatch.watch(model, optimizer, settings=SETTINGS) as watch:
        for _ in range(12):
            nn.functional.cross_entropy(model(torch.ones(3, 4)), torch.tensor([0, 1, 0])).backward()
            optimizer.step()
    (found,) = FrozenParametersInOptimiser().check(watch.record)
    code = {"torch": torch, "model": model}
    exec(found.remedies[0].how, code)
    assert len(code["frozen"]) == len(found.where) == 20


def test_stays_silent_where_nothing_is_frozen_or_no_more():
    model = body_and_head()
    assert train(model, OPTIMIZERS["adam"](model.parameters()), at=-1)[0] == []
    model = body_and_head()
    assert train(model, OPTIMIZERS["adam"](model.parameters()), thaw=40)[0] == []
    model = body_and_head()
    model[0].requires_grad_(False)
    assert train(model, OPTIMIZERS["adam"](model[2].parameters()))[0] == []


def test_nets_that_train_in_turn_are_frozen_for_one_another():
    torch.manual_seed(0)
    nets = {"one": nn.Linear(6, 6), "other": nn.Linear(6, 6)}
    optimizers = {key: torch.optim.Adam(net.parameters(), lr=1e-2) for key, net in nets.items()}
    x = torch.randn(32, 6)
    with trainwatch.watch(nets, optimizers, settings=SETTINGS) as watch:
        for step in range(120):
            mine, theirs = ("one", "other") if step % 2 else ("other", "one")
            nets[mine].requires_grad_(True)
            nets[theirs].requires_grad_(False)
            optimizers[mine].zero_grad(set_to_none=False)
            nn.functional.mse_loss(nets["other"](nets["one"](x)), x.flip(1)).backward()
            optimizers[mine].step()
    assert list(FrozenParametersInOptimiser().check(watch.record)) == []


def a_record(moved=0.5, gradient=True, norms=(1.0, 0.0, 0.0)):
    """Gradient norms at steps 10, 40 and 80 of a parameter that was frozen at step 20."""
    record = RunRecord()
    record.set_fact("parameters", [{"name": "0.weight", "numel": 8}])
    group = {"lr": 0.1, "weight_decay": 0.1, "parameters": [0]}
    record.set_fact("optimizers", {"default": {"type": "SGD", "parameters": [0], "groups": [group]}})
    record.set_fact("frozen_held", {"default": [{"parameter": 0, "since": 20, "gradient": gradient, "moved": moved}]})
    record.append("grad_norm", "default", [10, 40, 80], np.array(norms)[:, None])
    return record


def verdict(record):
    return [d.severity for d in FrozenParametersInOptimiser().check(record)]


def test_thresholds():
    assert verdict(a_record(0.011)) == [Severity.WARNING]
    assert verdict(a_record(0.009)) == [Severity.INFO]


def several(*moved):
    """As `a_record`, of parameters that were frozen from step 20, 30, 40 ... on, without gradients but the first."""
    record = a_record()
    places = list(range(len(moved)))
    record.set_fact("parameters", [{"name": f"{i}.weight", "numel": 8} for i in places])
    group = {"lr": 0.1, "weight_decay": 0.1, "parameters": places}
    record.set_fact("optimizers", {"default": {"type": "SGD", "parameters": places, "groups": [group]}})
    held = [{"parameter": i, "since": 20 + 10 * i, "gradient": True, "moved": m} for i, m in enumerate(moved)]
    record.set_fact("frozen_held", {"default": held})
    record._series.pop("grad_norm")
    return record


def test_of_several_those_that_move_are_named_and_where_none_does_all():
    (found,) = FrozenParametersInOptimiser().check(several(0.0, 0.2, 0.5))
    assert (found.severity, found.where, found.onset_step) == (Severity.WARNING, ("2.weight", "1.weight"), 30)
    assert found.margin == np.inf
    (found,) = FrozenParametersInOptimiser().check(several(0.0, 0.0))
    assert (found.severity, found.where, found.onset_step) == (Severity.INFO, ("0.weight", "1.weight"), 20)
    assert found.margin == np.inf


def test_weights_that_are_loaded_are_moved_by_nobody():
    model = body_and_head()
    state = {name: value + 1 for name, value in model.state_dict().items()}
    optimizer = OPTIMIZERS["plain"](model.parameters())
    (found,), moved = train(model, optimizer, at=20, load=(60, state))
    assert moved > 1
    assert found.severity == Severity.INFO


def test_who_gives_gradients_to_what_is_frozen_means_it():
    assert verdict(a_record(norms=(1.0, 0.5, 0.7))) == []
    assert verdict(a_record(norms=(1.0, 0.5, 0.5))) == [Severity.WARNING]


def test_what_moves_without_a_gradient_is_moved_by_somebody_else():
    assert verdict(a_record(gradient=False)) == [Severity.INFO]


@pytest.mark.parametrize("code", ["TW203", "TW204", "TW402", "TW403", "TW601", "TW603"])
def test_it_accounts_for_what_got_worse_later(code):
    accounts = FrozenParametersInOptimiser.explains[code]
    (moves,), (stays,) = (FrozenParametersInOptimiser().check(a_record(moved)) for moved in (0.5, 0.0))
    later, earlier = (moves.with_(code=code, onset_step=step) for step in (30, 10))
    assert accounts(moves, later)
    assert not accounts(moves, earlier)
    assert not accounts(stays, later)


def test_abstains_where_parameters_are_unknown():
    with pytest.raises(NotChecked):
        list(FrozenParametersInOptimiser().check(RunRecord()))


def test_what_moves_and_what_does_not_is_told_otherwise():
    (moves,), (stays,) = (FrozenParametersInOptimiser().check(a_record(moved)) for moved in (0.5, 0.0))
    assert "are still moved by the optimiser" in moves.summary
    assert "it does not move them" in stays.summary
