"""What holds for every renderer: exact text of a small report, order, words, determinism, the way through JSON."""

import html as html_text
import re
from pathlib import Path

import pytest

from trainwatch.diagnosis import Diagnosis, Severity
from trainwatch.report import IN_PART, Report
from trainwatch.reports import FORMATS, render

EXPECTED = Path(__file__).parent / "expected"


@pytest.mark.parametrize("format", FORMATS)
def test_small_report_reads_exactly_so(small, format):
    assert render(small, format) == (EXPECTED / f"small.{format}").read_text(encoding="utf-8")


@pytest.mark.parametrize("format", FORMATS)
def test_report_read_back_from_json_renders_the_same(small, large, others, format):
    for report in (small, large, *others.values()):
        again = Report.from_json(report.to_json())
        assert again.to_json() == report.to_json()
        assert render(again, format) == render(report, format)


@pytest.mark.parametrize("format", ["text", "md", "html"])
def test_all_is_said_in_the_same_order(small, format):
    said = [
        "1 problem found in 1,200 steps (12 epochs, 61,706 parameters): TW302 exploding-gradients (error)",
        "The gradient norm grew 4,100 times within 90 steps.",
        "encoder.layers.0.weight",
        "began near step 430, reported at step 500, confidence 0.97",
        "gradient norm against its history",
        "4,100 times",
        "50 times",
        "520",
        "What to do",
        "Clip the gradient norm at 0.9",
        "It is the 95 % quantile before the onset.",
        "max_norm=0.9",
        "Normalise the layers (already in use)",
        "Leads to",
        "TW303 non-finite (error)",
        "The loss is not finite from step 520 on.",
        "Not checked",
        "no class labels: TW104",
        "no validation loss was seen: TW201, TW202",
        "Cost of watching",
        "1.1 % of 148 s of training, 1,350 us a step: capture 1.2 s, engine 412 ms, writing under 1 ms.",
        "Skipped: curvature at step 800.",
        "trainwatch explain TW302",
    ]
    text = html_text.unescape(re.sub("<[^>]*>", "", render(small, format))).replace("\\", "")
    text = " ".join(text.split())
    at = 0
    for words in said:
        at = text.index(words, at)


@pytest.mark.parametrize("format", ["text", "md", "html"])
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty", "Healthy: nothing wrong was found in this run."),
        ("healthy", "Healthy: nothing wrong was found in 40 steps. 1 rule could not judge."),
        (
            "not-judged",
            "Not judged: too little was seen in this run to call it sound or faulty. 1 rule could not judge.",
        ),
    ],
)
def test_no_finding_is_said_in_a_sentence(others, format, name, sentence):
    text = render(others[name], format)
    assert sentence in " ".join(text.split())
    assert "explain" not in text


def test_rules_that_judged_in_part_are_told_apart():
    reasons = {"TW301": "no gradient", "TW204": f"{IN_PART}there was no time", "TW205": f"{IN_PART}there was no time"}
    text = " ".join(render(Report("healthy", not_checked=reasons), "text").split())
    assert "in this run. 1 rule could not judge. 2 rules could judge only in part." in text
    assert "in part: there was no time: TW204, TW205" in text


def test_what_was_seen_in_part_is_called_healthy_in_part():
    unseen = Diagnosis("TW709", "not-judgeable", Severity.INFO, "too little to judge: no validation loss was seen")
    text = " ".join(render(Report("healthy", (unseen,)), "text").split())
    assert "Healthy as far as could be seen: nothing wrong was found in this run. Also 1 note." in text


@pytest.mark.parametrize("format", ["text", "md", "html"])
def test_traceback_is_its_last_line(large, format):
    text = render(large, format)
    assert "Traceback (most recent" not in text
    assert "the record holds the whole traceback" in " ".join(text.split())
    assert "Traceback (most recent" in render(large, "json")


@pytest.mark.parametrize("format", FORMATS)
def test_no_control_character_gets_through(large, format):
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", render(large, format))


def test_a_report_is_shown_by_verdict_and_codes(small):
    assert repr(Report("healthy")) == "Report(verdict='healthy', findings=[])"
    assert len(repr(small)) < 300
    assert all(f"{d.code} {d.name}" in repr(small) for d in small.findings())


@pytest.mark.parametrize("format", FORMATS)
def test_a_report_renders_itself(small, format):
    assert small.render(format) == render(small, format)


@pytest.mark.parametrize(
    "text", ['{"schema": 1, "verdict": "healthy"}', '{"schema": 1, "verdict": "x", "diagnoses": 3}']
)
def test_a_damaged_report_is_named_as_that(text):
    with pytest.raises(ValueError, match="damaged"):
        Report.from_json(text)


def test_unknown_format_names_the_known_ones(small):
    with pytest.raises(ValueError, match="text, md, json, html, got 'pdf'"):
        render(small, "pdf")


def test_save_writes_all(small, tmp_path):
    paths = small.save(tmp_path / "new")
    assert [path.name for path in paths] == ["report.json", "report.md", "report.html"]
    assert paths[1].read_text(encoding="utf-8") == render(small, "md")


DATA = {
    "train": {
        "source": "digits/[red]train",
        "samples": 1300,
        "total": 1301,
        "about": ["images of 8 x 8 pixels", "uint8", "10 classes of 124 to 142 samples"],
        "notes": ["a class is a sub-folder"],
        "problems": {"count": 9, "first": [{"place": f"{i}.png", "what": "cannot be read"} for i in range(7)]},
    },
    "val": {
        "source": "val",
        "samples": 1,
        "total": None,
        "about": ["rows of 2 features", "float64", "no targets"],
        "notes": [],
        "problems": {"count": 0, "first": []},
    },
}


@pytest.mark.parametrize("format", ["text", "md", "html"])
def test_a_report_on_data_speaks_of_data(format):
    report = Report("healthy", facts={"subject": "data", "data": DATA})
    text = html_text.unescape(re.sub("<[^>]*>", "", render(report, format))).replace("\\", "")
    text = " ".join(text.split())
    for words in (
        "Healthy: nothing wrong was found in 1,300 training and 1 validation samples.",
        "What was read",
        "Training: 1,300 of 1,301 samples of digits/[red]train, images of 8 x 8 pixels, uint8, 10 classes of 124 to",
        "Training: a class is a sub-folder.",
        "Training: 4.png cannot be read.",
        "Training: 4 more problems of that kind.",
        "Validation: 1 sample of val, rows of 2 features, float64, no targets.",
    ):
        assert words in text
    assert "5.png" not in text
    assert not re.search(r"\bsteps?\b|Cost of watching|this run", text)


@pytest.mark.parametrize("format", ["text", "md", "html"])
def test_a_report_on_data_without_facts_still_reads(format):
    assert "found in these data" in render(Report("healthy", facts={"subject": "data"}), format)
