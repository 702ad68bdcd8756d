import re
import warnings

import pytest
from markdown_it import MarkdownIt

from reports.hostile_names import HOSTILE
from trainwatch.reports import markdown, wording

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of a library inside TensorBoard
    from tensorboard.plugin_util import markdown_to_safe_html

RENDERERS = {
    "tensorboard": markdown_to_safe_html,
    "commonmark": MarkdownIt("commonmark").enable("table").render,
}
BENIGN = (
    "layers.0.weight",
    "-0.31 of 2",
    "__init__",
    "R&D &lt; 3",
    "# 1",
    "1. x",
    "- x",
    "---",
    "a\\|b",
    "![x](y)",
    "> q",
)


def text_of(page):
    unescaped = page.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&#126;", "~")
    return " ".join(unescaped.replace("&amp;", "&").split())


@pytest.mark.parametrize("renderer", RENDERERS.values(), ids=RENDERERS)
@pytest.mark.parametrize("name", [*HOSTILE, *BENIGN])
def test_any_name_shows_as_it_is(renderer, name):
    paragraph = renderer(markdown.escape(name))
    assert text_of(re.sub("^<p>|</p>$", "", paragraph.strip())) == wording.line(name)
    cell = renderer(f"| a | b |\n| --- | --- |\n| {markdown.escape(name)} | 7 |")
    cells = re.findall(r"<td>(.*?)</td>", cell)
    assert [text_of(each) for each in cells] == [wording.line(name), "7"]


@pytest.mark.parametrize("renderer", RENDERERS.values(), ids=RENDERERS)
def test_report_renders_as_headings_tables_lists_and_code(large, renderer):
    page = renderer(markdown.render(large))
    assert page.count("<h2>") == 6
    assert page.count("<table>") == 2
    assert "<pre><code" in page
    assert "w = {'```': 1}\n" in page
    assert "<script" not in page
    assert re.search(r"<li>TW202 .*\n?<ul>\s*<li>TW203", page)


def test_no_raw_html(large):
    prose = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", markdown.render(large))
    assert "<" not in prose


def test_names_need_no_escape_where_they_are_plain():
    assert (
        markdown.escape("encoder.layers_0.weight is 0.5 at step 1,200")
        == "encoder.layers_0.weight is 0.5 at step 1,200"
    )
