"""The report in a notebook: the page of `html` in a frame, so that neither's style reaches the other."""

from __future__ import annotations

from markupsafe import escape

from trainwatch.report import Report
from trainwatch.reports import html

STYLE = "width: 100%; height: 40rem; border: 0; resize: vertical; overflow: auto"


def render(report: Report) -> str:
    """A frame with the whole page in it. It runs no script and has no access to the notebook."""
    page = escape(html.render(report))
    return f'<iframe title="trainwatch report" sandbox style="{STYLE}" srcdoc="{page}"></iframe>'
