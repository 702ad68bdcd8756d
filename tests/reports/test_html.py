import json
import math
import re
from html.parser import HTMLParser

import pytest

from reports.hostile_names import HOSTILE
from trainwatch.diagnosis import to_plain
from trainwatch.figures import Bars, Curve, Gallery, Heatmap, Histogram, Intervals, Plane, Profile, figure_from_plain
from trainwatch.report import Report
from trainwatch.reports import drawing, html

VOID = {"meta", "br", "link", "img"}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="


class Page(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_hostile_names_are_text_and_nothing_else(large):
    page = Page(html.render(large))
    assert page.open == []
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(HOSTILE[0]) >= 3


def test_attributes_cannot_be_left(large):
    nasty = '"><img src=x onerror=alert(1)>'
    figures = {nasty: Bars(nasty, (nasty,), {nasty: (1.0,)})}
    page = Page(html.render(Report("healthy", figures=figures)))
    assert "img" not in page.tags
    assert ("aria-label", nasty) in page.attributes


def test_page_asks_for_nothing(large):
    text = html.render(large)
    asked = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)|@import', text)
    assert all((a or b).startswith(("#", "data:")) for a, b in asked)
    assert "default-src 'none'" in text


def test_page_is_for_dark_and_light_phone_and_paper(small):
    text = html.render(small)
    for words in ("prefers-color-scheme: dark", 'name="viewport"', "@media print"):
        assert words in text


def test_every_figure_is_drawn_in_the_colours_of_the_page(large):
    text = html.render(large)
    assert text.count("<svg") == len(large.figures)
    assert "currentColor" in text
    assert drawing.INK not in text


def test_ids_do_not_repeat(large):
    ids = re.findall(r'\bid="([^"]*)"', html.render(large))
    assert ids
    assert len(ids) == len(set(ids))


def test_drawing_is_deterministic_and_undated(large):
    for figure in large.figures.values():
        text = drawing.svg(figure, "salt")
        assert text == drawing.svg(figure, "salt")
        assert "<dc:date>" not in text
        assert text.startswith("<svg")


def test_drawing_leaves_the_settings_of_matplotlib_alone(large):
    import matplotlib

    with matplotlib.rc_context({"axes.grid": True}):
        before = dict(matplotlib.rcParams)
        text = drawing.svg(large.figures["loss"], "salt")
        assert dict(matplotlib.rcParams) == before
    assert text == drawing.svg(large.figures["loss"], "salt")


@pytest.mark.parametrize(
    "figure",
    [
        Curve("t", "y", {}, {}),
        Curve("t", "y", {"a": ((0, float("inf")),)}, {0: "m"}),
        Curve("t", "y", {"a": ((0, -1.0), (1, 0.0))}, {}, log_y=True),
        Heatmap("t", (), (), (), "v"),
        Heatmap("t", ("a",), (0,), ((0.0,),), "v"),
        Bars("t", (), {}),
        Intervals("t", (), (), (), "v"),
        Intervals("t", ("a",), (math.nan,), (1.0,), "v"),
        Profile("t", "x", "y", {"a": ()}, {0.0: "m"}),
        Profile("t", "x", "y", {"a": ((0.0, math.inf, 0.0),)}, {}),
        Plane("t", "x", "y", "v", (), (), ()),
        Plane("t", "x", "y", "v", (0.0, 1.0), (0.0, 1.0), ((math.nan, math.inf),) * 2),
        Histogram("t", {}, {}, {}),
        Histogram("t", {"a": (0.0, 1.0)}, {"a": {"g": (math.nan,)}}, {}),
    ],
)
def test_nothing_to_draw_is_said(figure):
    assert "no finite value to draw" in drawing.svg(figure, "salt")


@pytest.mark.parametrize(
    "figure",
    [
        Curve("t", "y", {"a": ((5, 1.0),)}, {5: "m"}, log_y=True),
        Heatmap("t", ("a",), (0,), ((1.0,),), "v"),
        Heatmap("t", ("a",), (0, 1), ((-1.0, 2.0),), "v", log=False),
        Bars("検証", ("猫",), {"枚": (1.0,)}),
        Intervals("t", ("$a_b",), (-2.0,), (math.nan,), "v"),
        Profile("t", "x", "y", {"_a": ((0.0, 1.0, 0.1),), "b": ((0.0, 1.0, math.nan), (1e-9, 2.0, 0.0))}, {0.0: "m"}),
        Plane("t", "x", "y", "v", (-1.0, 1.0), (0.0, 1.0), ((1.0, 2.0), (3.0, math.nan))),
        Plane("t", "x", "y", "v", (-1.0, 1.0), (0.0, 1.0), ((1.0, 1.0), (1.0, 1.0))),
    ],
)
def test_extreme_figures_are_drawn(figure):
    text = drawing.svg(figure, "salt")
    assert "no finite value" not in text
    assert "mathdefault" not in text


@pytest.mark.parametrize(
    "figure",
    [
        Intervals("t", ("a",), (-2.0,), (math.nan,), "v"),
        Profile("t", "x", "y", {"a": ((0.0, 1.0, 0.1),)}, {0.5: "m"}),
        Plane("t", "x", "y", "v", (-1.0, 1.0), (0.0,), ((1.0, math.inf),)),
        Histogram("t", {"a": (0.0, 1.0)}, {"a": {"g": (math.nan,)}}, {"a": "n"}),
        Gallery("t", {"a": ((PNG, "c"),), "b": ()}),
    ],
)
def test_figures_come_back_from_json(figure):
    plain = json.loads(json.dumps({"kind": figure.kind, **to_plain(figure)}))
    assert str(figure_from_plain(plain)) == str(figure)  # NaN equals itself there


def test_error_bars_and_the_place_are_drawn():
    """What tells a profile from its line, and a plane from its colours."""
    sure = Profile("t", "x", "y", {"a": ((0.0, 1.0, 0.0), (1.0, 2.0, 0.0))}, {})
    unsure = Profile("t", "x", "y", {"a": ((0.0, 1.0, 0.5), (1.0, 2.0, 0.5))}, {})
    assert drawing.svg(sure, "salt") != drawing.svg(unsure, "salt")
    assert drawing.COLOURS[-1] in drawing.svg(Plane("t", "x", "y", "v", (0.0, 1.0), (0.0, 1.0), ((1.0, 2.0),) * 2), "s")


def test_long_curves_are_thinned_but_keep_their_spikes():
    points = [(i, 1.0) for i in range(10_000)]
    points[7_777] = (7_777, 50.0)
    thinned = drawing._thinned(points)
    assert len(thinned) <= drawing.POINTS
    assert (7_777, 50.0) in thinned
    assert thinned == sorted(thinned)


def test_bars_beyond_the_limit_are_counted():
    labels = tuple(f"c{i}" for i in range(55))
    text = drawing.svg(Bars("t", labels, {"n": (1.0,) * 55}), "salt")
    assert ">c39<" in text
    assert ">c40<" not in text
    assert "15 more are not drawn" in text


@pytest.mark.parametrize("log_y", [False, True])
def test_a_band_is_shaded(log_y):
    line = {"val": ((0, 1.0), (5, 0.5), (9, 0.7))}
    band = {"val": ((0, 0.9, 1.1), (5, -0.1, 0.6), (9, float("nan"), float("inf")))}
    plain, shaded = (drawing.svg(Curve("t", "y", line, {}, log_y=log_y, bands=b), "s") for b in ({}, band))
    assert shaded.count("fill-opacity: 0.25") == 1 + plain.count("fill-opacity: 0.25")


def test_a_histogram_has_a_panel_each_and_tells_groups_apart():
    edges = {f"q{i}": (0.0, 1.0, 2.0) for i in range(6)}
    alone = Histogram("t", edges, {name: {"a": (0.5, 0.5)} for name in edges}, {"q1": "3 missing"})
    text = drawing.svg(alone, "salt")
    assert all(f">{name}<" in text for name in edges)
    assert ">3 missing<" in text
    both = Histogram("t", edges, {name: {"a": (0.5, 0.5), "b": (0.9, 0.1)} for name in edges}, {})
    text = drawing.svg(both, "salt")
    assert all(colour in text for colour in drawing.COLOURS[:2])
    assert ">b<" in text.replace("> ", ">")


def test_a_gallery_is_pictures_with_captions_and_words_for_those_who_cannot_see_them():
    gallery = Gallery("Labels <b>", {"cat": ((PNG, "labelled cat"), (PNG, 'looks "like" a dog'))})
    page = Page(html.render(Report("healthy", figures={"g": gallery})))
    assert page.open == []
    assert page.tags.count("img") == 2
    assert [v for name, v in page.attributes if name == "alt"] == ["cat: labelled cat", 'cat: looks "like" a dog']
    assert {v for name, v in page.attributes if name == "src"} == {f"data:image/png;base64,{PNG}"}
    for words in ("Labels <b>", "cat", 'looks "like" a dog'):
        assert words in page.text
    assert "svg" not in page.tags


@pytest.mark.parametrize("png", ["", 'x" onerror="alert(1)', "PHN2Zz4=", "nichts!", PNG + "\n"])
def test_what_is_no_picture_is_not_shown(png):
    page = Page(html.render(Report("healthy", figures={"g": Gallery("t", {"a": ((png, "said"),)})})))
    assert "img" not in page.tags


@pytest.mark.parametrize("format", ["text", "md"])
def test_galleries_are_for_the_page_alone(format):
    report = Report("healthy", figures={"g": Gallery("Pictures", {"a": ((PNG, "said"),)})})
    assert "Pictures" not in report.render(format)
