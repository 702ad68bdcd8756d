"""The report as one page without a single request: style and figures inline, no script, every text escaped."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trainwatch.report import Report
from trainwatch.reports import drawing, wording


def render(report: Report) -> str:
    """The report as a page of HTML; the same report gives the same page."""
    pages = Environment(
        loader=PackageLoader("trainwatch.reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    report = wording.settled(report)
    # The drawing escapes its own text; it alone enters the page as markup.
    figures = [
        (wording.line(f.title), Markup(drawing.svg(f, salt=name))) for name, f in wording.figures(report).items()
    ]
    return pages.get_template("report.html.j2").render(report=report, wording=wording, figures=figures)
