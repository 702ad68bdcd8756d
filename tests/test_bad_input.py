"""What cannot be watched is refused at set-up, by an error that names the input and the remedy."""

import warnings

import pytest
import torch
from torch import nn

import trainwatch


def model():
    return nn.Linear(4, 2)


def sgd(net):
    return torch.optim.SGD(net.parameters(), lr=0.1)


def test_arguments_of_the_wrong_kind():
    net = model()
    optimizer = sgd(net)
    cases = {
        "model must be a torch.nn.Module": lambda: trainwatch.watch("net", optimizer),
        "the class Linear; call it first": lambda: trainwatch.watch(nn.Linear, optimizer),
        "optimizer must be a torch.optim.Optimizer": lambda: trainwatch.watch(net, net.parameters()),
        r"optimizer\['G'\]": lambda: trainwatch.watch(net, {"G": 3}),
        "loss_fn must be callable": lambda: trainwatch.watch(net, optimizer, loss_fn=3),
        "on_finding must be callable": lambda: trainwatch.watch(net, optimizer, on_finding="print"),
        "stop_on must be a sequence such as .'error'": lambda: trainwatch.watch(net, optimizer, stop_on=5),
        "got str 'ab'": lambda: trainwatch.watch(net, optimizer, class_names="ab"),
        "class_names must be a sequence": lambda: trainwatch.watch(net, optimizer, class_names=3),
        "stop_on must be a sequence such as .'error',., got the string": lambda: trainwatch.watch(
            net, optimizer, stop_on="error"
        ),
        "settings must be": lambda: trainwatch.watch(net, optimizer, settings=3),
    }
    for message, call in cases.items():
        with pytest.raises(TypeError, match=message):
            call()


def test_nothing_to_watch():
    net, other = model(), model()
    for message, arguments in {
        "has no parameters": (nn.ReLU(), sgd(net)),
        "holds none of the model's parameters": (net, sgd(other)),
        "optimizer 'b' holds none": (net, {"a": sgd(net), "b": sgd(other)}),
        "model is empty": ([], sgd(net)),
        "run one batch through it": (nn.Sequential(model(), nn.LazyLinear(2)), sgd(net)),
    }.items():
        with pytest.raises(ValueError, match=message):
            trainwatch.watch(*arguments)


def test_unknown_names_are_refused_with_the_nearest_match():
    net = model()
    for message, options in {
        "did you mean 'flush_every'": {"settings": {"flush_evry": 3}},
        "did you mean 'overfitting'": {"settings": {"rules": {"overfiting": {}}}},
        "did you mean 'min_rise'": {"settings": {"rules": {"overfitting": {"min_ris": 0.1}}}},
        "must be of type float": {"settings": {"rules": {"overfitting": {"min_rise": "much"}}}},
        "must be finite, got nan": {"settings": {"rules": {"overfitting": {"min_rise": float("nan")}}}},
        "must be whole, got 2.5": {"settings": {"rules": {"TW101": {"min_passes": 2.5}}}},
        "did you mean 'TW301'": {"settings": {"ignore": {"TW3O1": "why not"}}},
        "no rule's code starts with": {"settings": {"select": ("TX",)}},
        "between 0 and 1": {"settings": {"overhead": 2}},
        "at least 1": {"settings": {"flush_every": 0}},
        "did you mean 'activations'": {"settings": {"probes": {"activation": 10}}},
        "must run every so many steps": {"settings": {"probes": {"activations": 0}}},
        "must be a number of bytes": {"settings": {"probe_memory": -1}},
        "nonfinite must be one of auto, immediate, off": {"settings": {"nonfinite": "now"}},
        "no run is stopped for a remark": {"stop_on": ["info"]},
        "did you mean 'non-finite'": {"stop_on": ["nonfinite"]},
        "task must be one of": {"task": "clustering"},
    }.items():
        with pytest.raises(ValueError, match=message):
            trainwatch.watch(net, sgd(net), **options)
    assert not net._forward_hooks


def test_what_is_refused_leaves_the_watch_that_runs_as_it_is(tmp_path):
    net = model()
    optimizer = sgd(net)
    running = trainwatch.watch(net, optimizer, log_dir=tmp_path, settings={"quiet": True})
    files = sorted(tmp_path.rglob("*"))
    for options in ({"settings": {"nonsense": 1}}, {"class_names": 3}, {"stop_on": ["info"]}):
        with pytest.raises((TypeError, ValueError)):
            trainwatch.watch(net, optimizer, log_dir=tmp_path, **options)
    assert running.report is None
    assert sorted(tmp_path.rglob("*")) == files
    running.finish()


def test_a_whole_number_of_any_type_is_a_count():
    (rule,) = trainwatch.Settings(select=("TW101",), rules={"TW101": {"min_passes": 3.0}}).active_rules()
    assert rule.min_passes == 3
    assert type(rule.min_passes) is int


def test_settings_come_from_pyproject(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text(
        "[tool.trainwatch]\nquiet = true\nflush_every = 7\n[tool.trainwatch.rules.overfitting]\nmin_rise = 0.5\n"
    )
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    net = model()
    watch = trainwatch.watch(net, sgd(net), settings={"overhead": 0.1})
    settings = watch._monitor.settings
    assert (settings.flush_every, settings.overhead, settings.quiet) == (7, 0.1, True)
    assert settings.rules == {"TW201": {"min_rise": 0.5}}
    watch.finish()
    (tmp_path / "pyproject.toml").write_text("[tool.trainwatch]\nflush = 7\n")
    with pytest.raises(ValueError, match=r"did you mean 'flush_every'.*pyproject.toml"):
        trainwatch.watch(net, sgd(net))


def test_the_callback_refuses_likewise():
    pytest.importorskip("lightning")
    with pytest.raises(ValueError, match="did you mean"):
        trainwatch.TrainWatch(settings={"quite": True})
    with pytest.raises(TypeError, match="stop_on"):
        trainwatch.TrainWatch(stop_on="error")


def test_errors_of_torch_stay_the_users_own():
    net = model()
    watch = trainwatch.watch(net, sgd(net), settings={"quiet": True})
    with pytest.raises(ValueError, match="batch_size"):
        nn.functional.cross_entropy(net(torch.ones(3, 4)), torch.zeros(5, dtype=torch.long))
    with pytest.raises(IndexError):
        nn.functional.cross_entropy(net(torch.ones(3, 4)), torch.full((3,), 9))
    assert watch.finish().verdict == "not-judged"


@pytest.mark.parametrize(("steps", "verdict"), [(5, "not-judged"), (19, "not-judged"), (20, "healthy")])
def test_a_run_of_a_few_steps_is_not_judged(steps, verdict):
    torch.manual_seed(0)
    net = model()
    optimizer = sgd(net)
    watch = trainwatch.watch(net, optimizer, settings={"quiet": True, "probes": "off"})
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(16, 4)
        nn.functional.cross_entropy(net(x), (x[:, 0] > 0).long()).backward()
        optimizer.step()
    assert watch.finish().verdict == verdict


def test_that_shapes_do_not_match_is_warned_of_by_the_call_of_the_user_alone():
    net = nn.Linear(4, 1)
    optimizer = sgd(net)
    watch = trainwatch.watch(net, optimizer, settings={"quiet": True, "strict": True})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(40):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(torch.randn(8, 4)), torch.randn(8)).backward()
            optimizer.step()
            if step % 10 == 9:
                with torch.no_grad():
                    nn.functional.mse_loss(net(torch.randn(8, 4)), torch.randn(8))
        assert watch.finish().diagnoses[0].code == "TW703"
    assert len(caught) == 44


def test_a_run_of_no_step_is_not_judged():
    net = model()
    report = trainwatch.watch(net, sgd(net), settings={"quiet": True}).finish()
    assert report.verdict == "not-judged"
    assert not report
    assert not report.ok
