"""What the tab is given: the words of the report, in its order, in bounded size."""

import json
from dataclasses import replace
from typing import get_args

from tabs import FIGURES, diagnosis, report

from trainwatch.diagnosis import Severity
from trainwatch.figures import Curve, Figure, Heatmap
from trainwatch.report import Report
from trainwatch.reports import wording
from trainwatch.reports.drawing import COLOURS
from trainwatch.tensorboard import plugin
from trainwatch.tensorboard.snapshot import MOST_BYTES, figures_json, findings_json


def said(*args, **more):
    return json.loads(findings_json(*args, **more))


def drawn(made):
    return json.loads(figures_json(made))


def test_a_cause_is_told_in_the_words_of_the_report():
    (cause,) = said(report())["causes"]
    (d,) = report().diagnoses
    assert cause["title"] == wording.title(d)
    assert (cause["severity"], cause["summary"], cause["where"]) == ("warning", "It is fitted by heart.", "0, 2")
    assert cause["when"] == "began near step 25, reported at step 40, confidence 0.93"
    assert [tuple(row) for row in cause["evidence"]] == wording.evidence(d)
    assert [(r["title"], r["code"], r["in_use"]) for r in cause["remedies"]] == [
        ("Stop at step 25", "max_steps = 25  # <here>", False),
        ("Keep the dropout (already in use)", "", True),
    ]
    assert [c["title"] for c in cause["consequences"]] == ["TW203 trained-past-best (info)"]


def test_sections_follow_in_the_order_of_the_page():
    told = said(replace(report(), overhead={"share": 0.01, "seconds": {"losses": 1.0}}))
    assert [s["title"] for s in told["sections"]] == ["Not checked", "Cost of watching"]
    assert told["sections"][0]["lines"] == ["no classes: TW103"]
    assert told["more"] == "trainwatch explain TW201"
    assert told["headline"] == wording.headline(report())


def test_what_is_resolved_is_told_unless_it_is_back():
    gone = [(diagnosis("TW601", "learning-rate-too-high"), 80), (diagnosis("TW203", "trained-past-best"), 90)]
    (shown,) = said(report(), gone)["resolved"]
    assert (shown["title"], shown["when"]) == ("TW601 learning-rate-too-high (warning)", "resolved at step 80")


def test_what_one_look_saw_is_marked_and_not_called_reported():
    (cause,) = said(report(), unconfirmed={"TW201"})["causes"]
    assert cause["unconfirmed"]
    assert cause["when"] == "began near step 25, confidence 0.93, seen by one look so far"
    assert not said(report())["causes"][0]["unconfirmed"]


def test_figures_keep_order_and_lose_digits():
    made = Report(
        "healthy", figures={**FIGURES, "fine": Curve("Fine", "y", {"a": ((1, 1.23456789), (2, float("inf")))}, {})}
    )
    told = drawn(made)
    assert [f["name"] for f in told["figures"]] == [*FIGURES, "fine"]
    assert told["figures"][-1]["lines"] == {"a": [[1, 1.235], [2, "inf"]]}
    assert told["figures"][1]["values"][0] == [0.001, None]
    assert tuple(told["colours"]) == COLOURS


def test_the_loss_marks_where_problems_began():
    causes = [
        diagnosis(f"TW20{i}", "x", onset_step=step) for i, step in ((1, 25), (2, 40), (3, None), (4, 60), (5, 70))
    ]
    note = diagnosis("TW207", "x", Severity.INFO, onset_step=5)
    (loss, *_) = drawn(report(note, *causes))["figures"]
    assert loss["marks"] == {"25": "lowest; TW201 began", "40": "TW202 began", "60": "TW204 began"}
    assert FIGURES["loss"].marks == {25: "lowest"}


def test_too_large_figures_are_left_out_by_name():
    steps = tuple(range(500))
    row = tuple(0.123456 + s for s in steps)
    huge = Heatmap("Huge", tuple(map(str, range(400))), steps, (row,) * 400, "x")
    told = figures_json(Report("healthy", figures={"huge": huge, **FIGURES}))
    assert len(told.encode()) <= MOST_BYTES
    assert json.loads(told)["left_out"] == ["Huge"]
    assert [f["name"] for f in json.loads(told)["figures"]] == list(FIGURES)


def test_the_tab_draws_every_kind_of_figure():
    text = (plugin.STATIC / "figures.js").read_text()
    table = text[text.index("DRAWN = {") :].partition("{")[2].partition("}")[0]
    kinds = {figure.kind for figure in get_args(Figure)}
    assert {part.partition(":")[0].strip() for part in table.split(",") if part.strip()} == kinds
    assert {figure.kind for figure in FIGURES.values()} == kinds  # so that the tests in a browser see all of them


def test_page_and_tab_have_the_same_colours():
    def colours(text, opening):
        block = text[text.index(opening) :].partition("{")[2].partition("}")[0]
        return dict(part.split(":") for part in block.replace(" ", "").replace("\n", "").split(";") if "#" in part)

    page = (plugin.STATIC.parents[1] / "reports/templates/report.css").read_text()
    tab = (plugin.STATIC / "style.css").read_text()
    assert colours(page, ":root {") == colours(tab, ":root {") != {}
    assert colours(page[page.index("@media (prefers-color-scheme") :], ":root {") == colours(tab, ":root.dark {")


def test_cells_have_the_colours_of_the_page():
    import matplotlib

    text = (plugin.STATIC / "charts/colours.js").read_text()
    block = text[text.index("CIVIDIS = [") + len("CIVIDIS = ") :].partition("];")[0].rstrip().rstrip(",") + "]"
    table = json.loads(block)
    expected = [[round(255 * c) for c in matplotlib.colormaps["cividis"](i / 16)[:3]] for i in range(17)]
    assert table == expected
