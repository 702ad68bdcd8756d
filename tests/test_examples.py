"""Every example runs as a user would run it, finds what it shows, and is short enough to be read."""

import runpy
from pathlib import Path

import pytest

from trainwatch.config import Settings

EXAMPLES = Path(__file__).parents[1] / "examples"
FOUND = {
    "audit_images": "TW106",
    "audit_shuttle": "TW111",
    "deep_sigmoid_vanishing": "TW301",
    "digits_imbalance": "TW101",
    "digits_lightning": None,
    "digits_overfitting": "TW106",
    "experiments": "TW306",
    "fine_tuning": "TW801",
    "plain_faults": "TW702",
    "preflight": "TW703",
    "saddle": "TW401",
}
FAULTS = runpy.run_path(str(EXAMPLES / "plain_faults.py"))["FAULTS"]
BEFORE = runpy.run_path(str(EXAMPLES / "preflight.py"))["FAULTS"]
MEASURING = ("hessian_of_your_model",)  # prints numbers, not a report


def test_every_example_is_run_here():
    assert sorted([*FOUND, *MEASURING]) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", [*FOUND, *MEASURING])
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


@pytest.mark.parametrize("name", FAULTS)
def test_each_of_the_plain_faults_is_found(name):
    # The experiments of the one that needs some are run however slow the machine is.
    settings = Settings(quiet=True, probes={"learning_curve": 10**9, "train_eval": 10**9} if name == "few" else "off")
    report = runpy.run_path(str(EXAMPLES / "plain_faults.py"))["main"](name, settings)
    assert FAULTS[name] in [d.code for cause in report.findings() for d in cause.walk()]


@pytest.mark.parametrize(("name", "code"), [*BEFORE.items(), ("none", None)])
def test_each_fault_is_found_before_training(name, code, capsys):
    report = runpy.run_path(str(EXAMPLES / "preflight.py"))["main"](name, seconds=600)
    assert [d.code for d in report.diagnoses if d.severity > "info"] == ([code] if code else [])


def test_the_hessian_of_a_model_is_told_with_its_bounds_and_the_rate_that_it_allows(capsys):
    found = runpy.run_path(str(EXAMPLES / "hessian_of_your_model.py"))["main"]()
    assert found.converged
    assert found.smallest[0] < 0 < found.largest[1] <= found.largest[0]
    counted, largest, smallest, rate, verdict = capsys.readouterr().out.splitlines()
    assert counted == f"1,394 parameters, {found.products} products (converged)"
    assert largest.startswith(f"largest        {found.largest[0]:.4g} +- {found.largest_bounds[0]:.1g}, ")
    assert smallest.startswith(f"most negative  {found.smallest[0]:.4g} +- {found.smallest_bounds[0]:.1g}, ")
    assert rate.endswith(f"2 / {found.largest[0]:.4g} = {2 / found.largest[0]:.4g}")
    assert 2 / found.largest[0] > 0.1  # its rate
    assert verdict == "within it"
