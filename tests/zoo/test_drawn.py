"""Runs drawn at random: recipes, faults planted into them, and how they are counted."""

import json
from dataclasses import replace

import pytest
import torch
from outcomes import outcome
from rich.console import Console

from benchmarks.zoo.data import load
from benchmarks.zoo.drawn import runs
from benchmarks.zoo.drawn.faults import FAULTS
from benchmarks.zoo.drawn.recipes import HALF, draw, settled
from benchmarks.zoo.measured import labels
from benchmarks.zoo.measured.plain import Plain
from benchmarks.zoo.models import KINDS
from benchmarks.zoo.scenario import Data, Loop, Model, Optimizer, of_words, words
from benchmarks.zoo.training import LOSSES
from trainwatch.rules import all_rules

DRAWN = [draw(0, i) for i in range(150)]
OF_OTHER_PACKAGES = ("mnist", "cars", "shuttle", "phishing", "segments")  # which tests do not ask for
SMALL = replace(
    DRAWN[0],
    data=Data("blobs", 60, val=60),
    model=Model(hidden=(8,)),
    optimizer=Optimizer("SGD", 3e-3, schedule="cosine"),
    loop=Loop(epochs=6, batch=16),
)


def test_an_index_gives_a_recipe_whatever_is_drawn_before_it():
    assert [draw(0, i) for i in (7, 3)] == [DRAWN[7], DRAWN[3]]
    assert draw(1, 3) != DRAWN[3]
    assert len({s.fingerprint for s in DRAWN}) == len(DRAWN)


def test_recipes_are_of_known_words_and_sound_as_they_are_drawn():
    for s in DRAWN:
        assert s.model.kind in KINDS
        assert s.loss.name in LOSSES
        assert hasattr(torch.optim, s.optimizer.name)
        assert (s.half, s.planted, s.truth) == (HALF, False, ())
    assert {s.data.name for s in DRAWN} > {"text", "digits", "diabetes"}
    names = dict.fromkeys(s.data.name for s in DRAWN)
    assert all(load(Data(name), 0).outputs > 0 for name in names if name not in OF_OTHER_PACKAGES)


def test_every_fault_fits_some_recipe_and_changes_it():
    for name, fault in FAULTS.items():
        fitting = [s for s in DRAWN if fault.fits(s)]
        assert fitting, name
        planted = [fault.plant(s, name) for s in fitting]
        assert all(p.fingerprint != s.fingerprint for p, s in zip(planted, fitting, strict=True)), name
        assert {(p.form, p.truth, p.planted) for p in planted} == {(name, fault.codes, True)}
        assert set(fault.codes) <= set(all_rules())


def test_a_recipe_is_read_back_from_its_words():
    for s in (*DRAWN[:20], FAULTS["a_rare_class"].plant(SMALL, "a_rare_class")):
        assert of_words(s.half, s.family, s.form, s.truth, json.loads(json.dumps(words(s)))) == s


def test_the_rate_is_searched_for_and_no_pass_is_spent_in_vain():
    s = settled(SMALL)
    assert s.optimizer.lr > SMALL.optimizer.lr, "six passes at this rate get nowhere"
    assert s.optimizer.schedule == "cosine"
    assert Plain(s, 0).end < 0.5 * Plain(SMALL, 0).end
    short = settled(replace(SMALL, optimizer=Optimizer("Adam", 0.03), loop=Loop(epochs=100, batch=16)))
    assert 5 <= short.loop.epochs < 100


@pytest.mark.long
def test_a_drawn_recipe_is_trained_with_its_faults_once(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "draw", lambda seed, index: replace(SMALL, family=f"{seed}-{index:03d}"))
    monkeypatch.setattr(runs, "EACH", 1)
    assert runs.train((tmp_path, 5, 0)) == ("5-000", "")
    scenarios = runs.stored(tmp_path, 5)
    assert len(scenarios) == 1 + runs.EACH
    assert {s.planted for s in scenarios if s.form != "base"} == {True}
    assert runs.stored(tmp_path, 6) == []
    monkeypatch.setattr(runs, "settled", pytest.fail)
    monkeypatch.setattr(runs, "run", pytest.fail)
    assert runs.train((tmp_path, 5, 0)) == ("5-000", ""), "nothing is trained again"


def test_a_recipe_that_fails_is_named(tmp_path, monkeypatch):
    broken = replace(SMALL, data=Data("no such set"))
    monkeypatch.setattr(runs, "draw", lambda *_: broken)
    name, wrong = runs.train((tmp_path, 5, 0))
    assert name == broken.family
    assert "no such set" in wrong


def test_faults_are_counted_by_what_is_there(tmp_path):
    def measured(name, said, **degrees):
        s = FAULTS["strong_decay"].plant(replace(SMALL, family=name), "strong_decay")
        heard = replace(outcome(*said), scenario=s)
        path = labels._path(tmp_path, s, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"fingerprint": s.fingerprint, "degrees": degrees}))
        return heard

    heard = [
        measured("a", ["TW206"], TW206=3.0),
        measured("b", ["TW204", "TW206"], TW206=1.5, TW204=2.0),
        measured("c", ["TW204"], TW206=4.0, TW204=0.1),
        measured("d", ["TW207"], TW206=0.2, TW207=None),
    ]
    row, everything = runs.rows(tmp_path, runs.measured(tmp_path, heard))
    assert (row.planted, row.there, row.found, row.first) == (4, 3, 2, 1)
    assert (row.clear, row.clearly_found, row.untrue) == (2, 1, 1)
    assert replace(everything, name=row.name) == row
    console = Console(record=True, width=160)
    console.print(runs.table([row], [outcome(), outcome("TW204")]))
    text = console.export_text()
    assert "strong decay" in text
    assert "2 sound runs, 1 alarmed" in text
