"""`trainwatch.audit`: from data to a report. Measures and rules have tests of their own; here stand-ins answer."""

import random
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch.utils.data import DataLoader, TensorDataset

import audit_stand_in
from trainwatch.auditing import api
from trainwatch.auditing.api import audit
from trainwatch.auditing.sources import AuditError
from trainwatch.config import SettingsError
from trainwatch.report import Report

IMAGES, CLASSES = load_digits(return_X_y=True)
IMAGES, CLASSES = IMAGES[:300].reshape(-1, 8, 8), CLASSES[:300]


@pytest.fixture(autouse=True)
def measures(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # settings of no project

    def put(**changes):
        monkeypatch.setitem(sys.modules, f"{api.__package__}.measures", audit_stand_in.module(**changes))

    put()
    return put


def test_a_report_tells_what_was_read():
    report = audit((IMAGES, CLASSES), (IMAGES[:100], CLASSES[:100]), limit=200)
    train, val = report.facts["data"].values()
    assert report.facts["subject"] == "data"
    assert (train["samples"], train["total"], val["samples"]) == (200, 300, 100)
    assert train["about"][:2] == ["images of 8 x 8 pixels", "float64"]
    assert train["about"][2].startswith("10 classes of ")
    assert train["notes"] == ["an even subset of 200 of 300 samples was looked at"]
    assert val["notes"] == []
    assert "200 training and 100 validation samples" in report.to_markdown()
    assert {"classes", "features", "samples"} <= set(report.figures)


def test_the_same_data_give_the_same_report_which_survives_json():
    report = audit((IMAGES, CLASSES))
    assert report.to_json() == audit((IMAGES, CLASSES)).to_json()
    again = Report.from_json(report.to_json())
    assert again.to_html() == report.to_html()
    assert report.to_html().count("<img") > 50


def test_wrong_labels_are_found_and_shown():
    wrong = CLASSES.copy()
    wrong[::10] = (wrong[::10] + 3) % 10
    report = audit((IMAGES, wrong))
    assert [d.code for d in report.findings()] == ["TW106"]
    shown = [caption for group in report.figures["suspects"].groups.values() for _, caption in group]
    assert sum(int(c.rpartition(" ")[2]) % 10 == 0 for c in shown) > 0.5 * len(shown) > 10
    assert report.figures["suspects"].title == "Labels to look at first"
    assert "most like another class" in audit((IMAGES[:100], CLASSES[:100])).figures["suspects"].title


def test_only_the_rules_of_an_audit_are_told_of(measures):
    measures(AUDITED=("TW105", "TW106"))
    report = audit(load_diabetes(return_X_y=True))
    assert set(report.not_checked) == {"TW105", "TW106"}
    assert report.facts["data"]["train"]["about"] == [
        "rows of 10 features",
        "float64",
        "numbers to predict from 25 to 346",
    ]


def test_what_is_asked_for_reaches_the_measures(measures):
    seen = []
    measures(measured=lambda parts, **how: seen.append(how) or audit_stand_in.measured(parts, **how))
    audit((IMAGES, CLASSES), near_duplicates=True)
    audit((IMAGES, CLASSES), task="regression")
    assert seen == [{"task": "multiclass", "near_duplicates": True}, {"task": "regression", "near_duplicates": False}]


def test_names_of_classes_reach_the_report():
    report = audit((IMAGES, CLASSES), class_names=list("abcdefghij"))
    assert report.facts["class_names"] == list("abcdefghij")
    assert report.figures["classes"].labels == tuple("abcdefghij")
    words = np.array(["even", "odd"])[CLASSES % 2]
    assert audit((IMAGES, words)).figures["classes"].labels == ("even", "odd")


def test_settings_count():
    report = audit((IMAGES, CLASSES), settings={"ignore": {"TW106": "known"}})
    assert report.not_checked == {"TW106": "ignored: known"}
    assert report.verdict == "not-judged"
    with pytest.raises(SettingsError, match="flush_evry"):
        audit((IMAGES, CLASSES), settings={"flush_evry": 1})


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"task": "classes"}, "task must be one of binary, .*got 'classes'"),
        ({"limit": 0}, "limit must be a number of samples"),
        ({"limit": 1.5}, "limit must be"),
        ({"class_names": "cat"}, "class_names must be a sequence"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(how, words):
    with pytest.raises(AuditError, match=words):
        audit((IMAGES, CLASSES), **how)


def test_problems_are_part_of_the_report():
    samples = [(torch.ones(3) * i, i % 2) for i in range(30)] + [(torch.ones(4), 0)]
    part = audit(samples).facts["data"]["train"]
    assert part["problems"]["count"] == 1
    assert part["problems"]["first"][0]["place"] == "30"
    assert "even subset" not in str(part["notes"])


def test_random_states_are_as_they_were():
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(
        TensorDataset(torch.tensor(IMAGES), torch.tensor(CLASSES)), 32, shuffle=True, generator=generator
    )

    def states():
        own = generator.get_state().tolist()
        return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(), own]

    before = states()
    audit(loader, loader)
    assert states() == before
    next(iter(loader))
    assert states() != before


def test_a_bar_is_shown_on_a_terminal_or_when_asked_for(capsys, monkeypatch):
    samples = [(torch.ones(3), i % 2) for i in range(30)]
    audit(samples)
    assert capsys.readouterr().err == ""
    audit(samples, progress=True)
    assert "reading train" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    audit(samples)
    assert "reading train" in capsys.readouterr().err
    audit(samples, progress=False)
    assert capsys.readouterr().err == ""


def test_a_picture_that_fails_leaves_the_rest_of_the_report(monkeypatch):
    monkeypatch.setattr(api, "pictures_of", lambda *_: 1 / 0)
    report = audit((IMAGES, CLASSES))
    assert report.verdict == "healthy"
    assert [d.code for d in report.diagnoses] == ["TW000"]
    assert "ZeroDivisionError" in report.diagnoses[0].summary
    assert report.facts["data"]["train"]["samples"] == 300
    with pytest.raises(ZeroDivisionError):
        audit((IMAGES, CLASSES), settings={"strict": True})
