"""`import trainwatch` costs next to nothing, and its public names are there all the same."""

import importlib
import json
import subprocess
import sys

import pytest

import trainwatch

HEAVY = (
    "torch",
    "lightning",
    "pytorch_lightning",
    "numpy",
    "scipy",
    "sklearn",
    "rich",
    "typer",
    "matplotlib",
    "jinja2",
)


def loaded_after(code):
    """Top-level modules in a fresh interpreter after some code."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    return set(json.loads(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout))


def test_importing_loads_nothing_heavy():
    assert loaded_after("import trainwatch").isdisjoint(HEAVY)


def test_settings_and_judging_need_no_torch():
    loaded = loaded_after("import trainwatch\ntrainwatch.Settings\ntrainwatch.diagnose\ntrainwatch.Report")
    assert "numpy" in loaded
    assert loaded.isdisjoint({"torch", "lightning", "sklearn", "scipy", "rich", "matplotlib"})


def test_the_command_line_starts_without_torch():
    assert loaded_after("import trainwatch.cli").isdisjoint({"torch", "lightning", "sklearn", "matplotlib"})


def test_experiments_for_use_alone_load_torch_when_called_for():
    assert loaded_after("import trainwatch\ntrainwatch.probes").isdisjoint(HEAVY)
    loaded = loaded_after("import trainwatch\ntrainwatch.probes.hessian_extremes")
    assert "torch" in loaded
    assert loaded.isdisjoint({"lightning", "sklearn", "matplotlib"})


def test_an_audit_can_be_called_whatever_was_imported_before():
    loaded = loaded_after("import trainwatch.auditing.api, trainwatch\nassert callable(trainwatch.audit)")
    assert loaded.isdisjoint({"lightning", "sklearn", "rich", "matplotlib"})


def test_watching_needs_no_lightning():
    assert loaded_after("import trainwatch\ntrainwatch.watch").isdisjoint({"lightning", "pytorch_lightning", "sklearn"})


@pytest.mark.parametrize("name", trainwatch.__all__)
def test_every_public_name_is_there(name):
    assert getattr(trainwatch, name) is not None
    assert name in dir(trainwatch)


@pytest.mark.parametrize("name", [n for n in trainwatch.__all__ if n != "__version__"])
def test_public_names_are_those_of_their_modules(name):
    value = getattr(trainwatch, name)
    assert value is getattr(importlib.import_module(value.__module__), name)


def test_type_checkers_see_the_names_that_are_loaded_late():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(trainwatch.__file__).read_text(encoding="utf-8"))
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {alias.asname: node.module for node in guarded.body for alias in node.names}
    assert homes == {name: f"trainwatch.{home}" for name, home in trainwatch._HOMES.items()}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'trainwatch' has no attribute 'wach'"):
        _ = trainwatch.wach
