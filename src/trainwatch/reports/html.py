"""The report as one page without a single request: style and figures inline, no script, every text escaped."""

from __future__ import annotations

import base64
import binascii

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trainwatch.figures import Figure, Gallery
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
    figures = [(wording.line(f.title), _picture(name, f), _tiles(f)) for name, f in wording.figures(report).items()]
    return pages.get_template("report.html.j2").render(report=report, wording=wording, figures=figures)


def _picture(name: str, figure: Figure) -> Markup | None:
    # The drawing escapes its own text; it alone enters the page as markup.
    return None if isinstance(figure, Gallery) else Markup(drawing.svg(figure, salt=name))


def _tiles(figure: Figure) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of a gallery: name, and (PNG, caption) of each picture that is one."""
    if not isinstance(figure, Gallery):
        return []
    groups = figure.groups.items()
    return [(wording.short(name), [(png, wording.line(said)) for png, said in g if _is_png(png)]) for name, g in groups]


def _is_png(text: str) -> bool:
    try:
        return base64.b64decode(text, validate=True).startswith(b"\x89PNG")
    except (binascii.Error, ValueError):
        return False
