"""What holds for every test: one thread, as fits small nets, and the same random numbers each time."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed():
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def pictures_are_drawn_where_they_are_looked_at(request, monkeypatch):
    """Each takes a fifth of a second, and most tests that write a report do not look at it."""
    if request.path.parent.name != "reports":
        monkeypatch.setattr("trainwatch.reports.drawing.svg", lambda figure, salt: "<svg></svg>")


@pytest.fixture(autouse=True)
def no_experiments_at_the_end_of_what_is_only_captured(request, monkeypatch):
    """They take seconds, and say nothing of what a record holds of the loop, or of what a callback translates."""
    if request.path.parent.name in ("callbacks", "capture"):
        monkeypatch.setattr("trainwatch.monitor.LAST_ROUND", 0.0)


@pytest.fixture(autouse=True)
def nothing_is_left_watching():
    """A test that fails in mid-training must not take the next ones with it."""
    yield
    from trainwatch.capture import interception

    for listener in interception._listeners:
        interception.unsubscribe(listener)


def pytest_addoption(parser):
    parser.addoption(
        "--all-seeds", action="store_true", help="real trainings with every seed, not the first alone, and long ones"
    )


def pytest_collection_modifyitems(config, items):
    import torch

    if not config.getoption("--all-seeds"):
        again = [item for item in items if trains_again(item)]
        config.hook.pytest_deselected(items=again)
        items[:] = [item for item in items if item not in set(again)]
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def trains_again(item):
    """A training of rules or probes that a test repeats with a further seed, or a long one: minutes in all."""
    if "long" in item.keywords:
        return True
    seed = getattr(item, "callspec", None) and item.callspec.params.get("seed", 0)
    return bool(seed) and (item.path.parent.name in ("rules", "probes") or item.path.name == "test_escape.py")
