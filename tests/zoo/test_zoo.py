"""The zoo's instrument on stored runs, and a few runs trained anew."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.zoo.__main__ import app
from benchmarks.zoo.judges import trainwatch
from benchmarks.zoo.scenario import scenarios
from benchmarks.zoo.score import Outcome
from benchmarks.zoo.store import path_of, restore, save
from benchmarks.zoo.training import run
from trainwatch.record import RunRecord

FIXTURES = sorted((Path(__file__).parent / "fixtures").rglob("*.npz"))
TRAINED = ("healthy_digits", "base"), pytest.param("softmax_twice", "blatant", marks=pytest.mark.long)


def scenario(family, form):
    return next(s for s in scenarios("tuning", family) if s.form == form)


def is_right(s, seed, record):
    outcome = Outcome(s, seed, trainwatch(record))
    return (outcome.first if s.planted else outcome.silent), outcome.said


@pytest.mark.parametrize("path", FIXTURES, ids=[f"{p.parent.name}/{p.stem}" for p in FIXTURES])
def test_stored_runs_are_judged_rightly(path):
    form, _, seed = path.stem.rpartition("-")
    s = scenario(path.parent.name, form)
    record, about = restore(path)
    assert about["fingerprint"] == s.fingerprint, "the scenario has changed: python -m benchmarks.zoo freeze"
    right, said = is_right(s, int(seed), record)
    assert right, said


@pytest.mark.parametrize(("family", "form"), TRAINED)
def test_runs_trained_anew_are_judged_rightly(family, form):
    threads = torch.get_num_threads()
    try:
        right, said = is_right(s := scenario(family, form), 3, run(s, 3))  # a seed that the zoo does not use
    finally:
        torch.set_num_threads(threads)
    assert right, said


def test_of_the_held_out_half_only_totals_are_printed(tmp_path):
    some = scenarios("held_out")
    for s in some[:6]:
        save(path_of(tmp_path, s, 0), RunRecord(), {})
    result = CliRunner().invoke(app, ["judge", "--folder", str(tmp_path), "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert "held-out half" in result.output
    assert not any(s.family in result.output for s in some)


def test_single_held_out_families_cannot_be_judged():
    name = scenarios("held_out")[0].family
    assert CliRunner().invoke(app, ["judge", name]).exit_code == 2
    assert isinstance(CliRunner().invoke(app, ["judge", name, "--half", "tuning"]).exception, ValueError)
