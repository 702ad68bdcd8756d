"""Renderers: one file a format over one `trainwatch.report.Report`, with the same content in the same order.

| format | file | for |
|---|---|---|
| ``text`` | `console` | a terminal (in colour) or a log (plain, 100 columns) |
| ``md`` | `markdown` | a pull request, a notebook, TensorBoard's text panel |
| ``json`` | `trainwatch.report.Report.to_json` | programs; holds everything, figures as data |
| ``html`` | `html` | one page to keep or to send, with the figures drawn |

A notebook shows a report by itself: `notebook` puts the page of ``html`` into a frame.
"""

from __future__ import annotations

import importlib

from trainwatch.report import Report

FORMATS = ("text", "md", "json", "html")
_RENDERERS = {"text": "console", "md": "markdown", "html": "html"}


def render(report: Report, format: str = "text") -> str:
    """A report as text.

    Args:
        report: The report.
        format: One of `FORMATS`.

    Raises:
        ValueError: The format is unknown.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if format == "json":
        return report.to_json()
    # A renderer is loaded with its library when it is asked for.
    return str(importlib.import_module(f"{__name__}.{_RENDERERS[format]}").render(report))
