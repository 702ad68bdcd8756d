"""Preflight leaves no trace, never raises because of the model, keeps its time, and says what rules of runs say."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tried import CE, STRICT, Forward, batch, net, only, tried

import trainwatch
from trainwatch.capture import interception
from trainwatch.checks import dependence
from trainwatch.checks.batch import one_batch
from trainwatch.checks.preflight import OVER, PREFLIGHT, Preflight
from trainwatch.config import Settings
from trainwatch.report import Report
from trainwatch.rules import all_rules

X, Y = batch()
QUIET = {"quiet": True, "strict": True}


def sound():
    return nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4))


def kept(model, optimizer, *generators):
    """All that must not change, copied."""
    slots = [v for s in optimizer.state.values() for v in s.values()]
    tensors = [*model.state_dict().values(), *(p.grad for p in model.parameters()), *slots]
    states = [torch.get_rng_state(), *(g.get_state() for g in generators)]
    modes = [m.training for m in model.modules()]
    return copy.deepcopy((tensors, states)), modes, np.random.get_state()[1].tolist(), random.getstate()


def same(one, other):
    tensors = zip((t for part in one[0] for t in part), (t for part in other[0] for t in part), strict=True)
    return all((a is b is None) or torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in tensors) and (
        one[1:] == other[1:]
    )


@pytest.mark.parametrize("given", ["batch", "loader"])
def test_leaves_no_trace(given, capsys):
    torch.manual_seed(0)
    model, own = sound(), torch.Generator().manual_seed(3)
    model[1].eval()  # frozen statistics, on purpose
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    loader = DataLoader(TensorDataset(X, Y), 8, shuffle=True, generator=own)
    CE()(model(X), Y).backward()
    optimizer.step()
    gradients = [p.grad for p in model.parameters()]
    before = kept(model, optimizer, own)
    loss = lambda o, t: F.cross_entropy(o, t) + 1e-3 * sum(p.abs().sum() for p in model.parameters())  # noqa: E731
    report = trainwatch.preflight(
        model,
        loss,
        loader if given == "loader" else (X, Y),
        optimizer,
        validation=loader,
        seconds=1e9,
        settings={"strict": True},
    )
    assert "TW703" not in report.not_checked
    assert same(before, kept(model, optimizer, own))
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert not model._forward_hooks
    assert optimizer.param_groups[0]["lr"] == 1e-2
    assert schedule.last_epoch == 0


def test_the_loss_and_the_batch_are_left_alone_too():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, outputs, targets):
            self.calls += 1
            return F.cross_entropy(outputs, targets)

    def in_place(self, x):
        return self.net(x.mul_(2))

    loss_fn, x = Counting(), X.clone()
    tried(Forward(in_place, net=net()), loss_fn, (x, Y))
    assert loss_fn.calls == 0
    assert torch.equal(x, X)


def test_a_running_watch_hears_nothing_of_it():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with trainwatch.watch(model, optimizer, settings=QUIET) as watch:
        facts, listening = dict(watch.record.facts), interception._listeners
        loader = DataLoader(TensorDataset(X, Y), 8)
        trainwatch.preflight(model, F.cross_entropy, loader, optimizer, seconds=1e9, settings=QUIET)
        assert watch.record.facts == facts  # neither a loss, nor a graph, nor a loader
        assert interception._listeners == listening
        assert watch._monitor.capture.losses.pending == []
        assert watch._monitor.capture._loader is None
    assert interception._listeners == ()


class WithoutClosure(torch.optim.SGD):
    def step(self):
        return super().step()


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 8, sparse=True), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.words(x).mean(1).relu())


def test_optimisers_of_every_form():
    model = net()
    report = tried(model, CE(), (X, Y), WithoutClosure(model.parameters(), lr=0.1))
    assert report.findings() == []
    assert report.facts["run"]["steps"] == 40
    report = tried(model, CE(), (X, Y), torch.optim.LBFGS(model.parameters()))
    assert report.verdict == "not-judged"  # its copy lacks what it keeps beside its state
    assert "a copy of the optimiser cannot take a step" in report.not_checked["TW703"]
    assert tried(Words(), CE(), (torch.arange(48).reshape(16, 3) % 9, Y)).findings() == []


def test_it_ends_though_the_capture_fails(monkeypatch):
    def broken(*_):
        raise RuntimeError("ours")

    monkeypatch.setattr("trainwatch.capture.run_capture.RunCapture._commit_watched", broken)
    model = net()
    report = Preflight(Settings(quiet=True), clock=lambda: 0.0).judge(model, None, one_batch((X, Y), CE(), model))
    assert "TW000" in [d.code for d in report.diagnoses]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("make", [net, sound], ids=["plain", "with norm and dropout"])
def test_sound_nets_are_healthy(make, seed):
    torch.manual_seed(seed)
    model = make()
    report = tried(model, CE(), batch(seed=seed), torch.optim.Adam(model.parameters(), 3e-3))
    assert report.verdict == "healthy"
    assert report.diagnoses == ()


def head_alone():
    model = net()
    return model, torch.optim.Adam(model[2].parameters(), 1e-2)


# Fault -> model and optimiser (or None), loss, batch.
WIRED = {
    "TW703": lambda: ((nn.Sequential(net(), nn.Softmax(1)), None), CE(), (X, Y)),
    "TW705": lambda: (head_alone(), CE(), (X, Y)),
    "TW706": lambda: ((nn.Sequential(nn.Linear(12, 32), nn.Linear(32, 4)), None), CE(), (X, Y)),
    "TW107": lambda: ((net(), None), CE(), (X * 1e-4, Y)),
    "TW108": lambda: ((net(outputs=1), None), nn.MSELoss(), (X, 300 + 40 * X[:, :1])),
    "TW309": lambda: ((zeros(net()), None), CE(), (X, Y)),
    "TW303": lambda: ((net(), None), CE(), (X.clone().index_fill_(0, torch.tensor(2), float("nan")), Y)),
}


def zeros(model):
    for p in model.parameters():
        nn.init.zeros_(p)
    return model


@pytest.mark.parametrize("code", WIRED)
def test_rules_of_runs_speak_before_training(code):
    torch.manual_seed(0)
    (model, optimizer), loss_fn, given = WIRED[code]()
    found = only(tried(model, loss_fn, given, optimizer))
    assert found.code == code
    assert found.onset_step is found.reported_step is None


def test_every_code_it_judges_by_is_one_of_a_rule():
    assert set(PREFLIGHT) <= set(all_rules())
    assert set(tried(net(), CE(), (X, Y)).not_checked) <= set(PREFLIGHT)


def test_validation_prepared_otherwise_is_found():
    model = net()
    report = tried(model, CE(), (X, Y), validation=one_batch((1e3 * X.flip(0), Y.flip(0)), CE(), model), validated=True)
    assert only(report).code == "TW109"
    assert only(report).where == ("validation inputs",)


@pytest.mark.parametrize(("validated", "codes"), [(False, ["TW709"]), (True, []), (None, [])])
def test_missing_validation_is_a_remark_where_it_was_told(validated, codes):
    report = tried(net(), CE(), (X, Y), validated=validated)
    assert [(d.code, d.severity) for d in report.diagnoses] == [(code, "info") for code in codes]
    assert report.verdict == "healthy"


class Ticking:
    """A clock that moves on by a second each time it is read."""

    def __init__(self):
        self.now = -1.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("seconds", [0.0, 50.0, 1e4])
def test_time_is_kept_and_what_was_not_reached_is_told(seconds):
    preflight = Preflight(STRICT, seconds=seconds, clock=Ticking())
    model = net()
    report = preflight.judge(model, None, one_batch((X, Y), CE(), model))
    missed = [code for code, why in report.not_checked.items() if why == OVER]
    assert (preflight.record.steps == 40) == (seconds == 1e4)
    assert preflight.record.steps >= 1  # what one step shows is always told
    assert missed == ([] if seconds == 1e4 else ["TW707", "TW710", "TW712"])
    assert preflight.record.has("one_batch_fit") == (seconds == 1e4)


def test_a_fault_of_its_own_is_told_and_raised_only_where_that_is_wanted(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("ours")

    monkeypatch.setattr(dependence, "measure", broken)
    model = net()
    for strict in (False, True):
        preflight = Preflight(Settings(quiet=True, strict=strict), clock=lambda: 0.0)
        if strict:
            with pytest.raises(RuntimeError, match="ours"):
                preflight.judge(model, None, one_batch((X, Y), CE(), model))
        else:
            report = preflight.judge(model, None, one_batch((X, Y), CE(), model))
            assert [d.code for d in report.diagnoses] == ["TW000"]
            assert report.verdict == "healthy"


def test_a_model_that_cannot_be_tried_is_not_judged(monkeypatch):
    model = net()
    small = Preflight(Settings(quiet=True, strict=True, probe_memory=100), clock=lambda: 0.0)
    report = small.judge(model, None, one_batch((X, Y), CE(), model))
    assert report.verdict == "not-judged"
    assert "more than probe_memory allows" in report.not_checked["TW309"]
    assert "meta device" in tried(net().to("meta"), CE(), (X, Y)).not_checked["TW309"]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    report = tried(model, CE(), (X, Y))
    assert report.verdict == "not-judged"
    assert set(report.not_checked.values()) == {"preflight is for a single process"}


def test_an_optimiser_whose_copy_lacks_a_part_is_not_judged():
    model = net()
    report = tried(model, CE(), (X, Y), torch.optim.LBFGS(model.parameters()))
    assert report.verdict == "not-judged"
    assert "'LBFGS' object has no attribute '_params'" in report.not_checked["TW309"]


def test_a_model_that_turns_autocast_on_learns_by_its_weights_of_each_step():
    def lower(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x)

    torch.manual_seed(0)
    assert tried(Forward(lower, net=net()), CE(), (X, Y)).verdict == "healthy"


class OwnLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, inputs, labels=None):
        outputs = self.net(inputs)
        return {"logits": outputs} if labels is None else {"loss": F.cross_entropy(outputs, labels), "logits": outputs}

    def criterion(self, outputs, targets):
        return F.cross_entropy(outputs["logits"], targets)


FORMS = {
    "a pair": lambda: (net(), CE(), (X, Y)),
    "a list": lambda: (net(), CE(), [X, Y]),
    "names": lambda: (net(), CE(), {"image": X, "label": Y}),
    "names for the model": lambda: (OwnLoss(), None, {"inputs": X, "labels": Y}),
    "a method of the model": lambda: (model := OwnLoss(), model.criterion, (X, Y)),
    "two inputs": lambda: (Forward(lambda s, a, b: s.net(a + b), net=net()), CE(), (X, X, Y)),
    "a compiled model": lambda: (torch.compile(net(), backend="eager"), CE(), (X, Y)),
}


@pytest.mark.parametrize("form", FORMS)
def test_batches_and_losses_of_every_form(form):
    torch.manual_seed(0)
    report = tried(*FORMS[form]())
    assert report.verdict == "healthy", report.diagnoses


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((net(), CE(), 3), TypeError, "batch must be"),
        ((net(), CE(), {"image": X, "class": Y}), TypeError, "rename one of image, class"),
        ((net(), CE(), (X[:0], Y[:0])), ValueError, "at least one sample"),
        ((net(), CE(), DataLoader(TensorDataset(X, Y), 64, drop_last=True)), ValueError, "yields nothing"),
        ((net(), 3, (X, Y)), TypeError, "loss_fn must be callable"),
        ((net(), CE, (X, Y)), TypeError, "loss_fn must be an instance, got the class CrossEntropyLoss; call it first"),
        (({"G": net(), "D": net()}, CE(), (X, Y)), TypeError, "one model at a time, got 2: call it for each"),
        ((nn.ReLU(), CE(), (X, Y)), ValueError, "has no parameters"),
        (("net", CE(), (X, Y)), TypeError, "model must be a torch.nn.Module"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        trainwatch.preflight(*arguments, settings=QUIET)
    with pytest.raises(TypeError, match="validation must be a DataLoader, or False"):
        trainwatch.preflight(net(), CE(), (X, Y), validation=True, settings=QUIET)


def test_the_report_is_printed_and_speaks_of_no_run(capsys):
    report = trainwatch.preflight(net(), CE(), (X, Y), validation=False, settings={"strict": True})
    printed = capsys.readouterr().out
    assert "a model of 548 parameters before training" in " ".join(printed.split())
    assert "Regularisation" not in printed
    assert Report.from_json(report.to_json()).to_json() == report.to_json()


def test_the_name_is_that_of_the_function_whatever_was_imported():
    import trainwatch.checks.preflight
    import trainwatch.remedies.preflight

    assert callable(trainwatch.preflight)
