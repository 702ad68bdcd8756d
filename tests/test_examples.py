"""Every example runs as a user would run it, finds what it shows, and is short enough to be read."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
FOUND = {
    "deep_sigmoid_vanishing": "TW301",
    "digits_imbalance": "TW101",
    "digits_lightning": None,
    "digits_overfitting": "TW201",
    "experiments": "TW306",
    "saddle": "TW401",
}


def test_every_example_is_run_here():
    assert sorted(FOUND) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", FOUND)
def test_an_example_is_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 65


@pytest.mark.parametrize("name", FOUND)
def test_an_example_finds_what_it_shows(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]()
    assert [d.code for d in report.findings()][:1] == ([FOUND[name]] if FOUND[name] else [])
    assert report.verdict == ("findings" if FOUND[name] else "healthy")
    printed = capsys.readouterr().out
    assert (FOUND[name] or "Healthy") in printed
